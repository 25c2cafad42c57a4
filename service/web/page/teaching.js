// From labels to a classifier: teach it, read what it is worth, ask what to label next, try it.

import { ask, get, send } from "./api.js";
import { copyAs } from "./code.js";
import { button, element, errorText, fileField, save, say, whenIdle } from "./dom.js";
import { NAMED, bars } from "./words.js";

export class TeachingView {
  constructor(collection) {
    this.collection = collection;
    this.name = element("input", { id: "teach-name", size: 14, ...NAMED, value: nameAfter(collection.about.name) });
    this.told = element("div", { role: "status" });
    this.next = element("div");
    const file = fileField("try-file", ([chosen]) => this.tryOn(chosen));
    this.tried = element("div");
    this.element = element("div", { class: "panel" }, element("h3", {}, "Make a classifier of the labels"),
      whenIdle("submit", element("form", { class: "row" },
        element("label", { for: "teach-name" }, "called"), this.name, element("button", { class: "main" }, "Teach"),
        button("Which next?", () => this.which()),
        element("label", { class: "button", for: "try-file" }, "Try it on a file"), file,
        button("Download it", () => this.export())), () => this.teach()),
      copyAs(() => ({ path: "v1/classifiers", json: this.asked(), python: `print(client.teach(${JSON.stringify(this.name.value)}, collection=${JSON.stringify(collection.about.name)}))` })),
      this.told, this.next, this.tried);
  }

  asked() {
    return { name: this.name.value, collection: this.collection.about.name };
  }

  async teach() {
    this.told.replaceChildren(element("progress", { "aria-label": "Learning" }));
    try {
      const answer = await ask("POST", "v1/classifiers", { json: this.asked() });
      this.told.replaceChildren(element("p", { class: "good" }, `${answer.id ?? this.name.value} answers now, as version ${answer.version}.`),
        ...answer.verdict.map((sentence) => element("p", {}, sentence)), ...(answer.warnings ?? []).map((warning) => element("p", { class: "warning" }, warning)));
      say(`${this.name.value} has been taught.`);
    } catch (error) {
      this.told.replaceChildren(errorText(error));
    }
  }

  which() {
    return this.collection.trying(async () => {
      const { data, considered } = await get(`v1/classifiers/${encodeURIComponent(this.name.value)}/next`, { collection: this.collection.about.name });
      await this.collection.loadNames(data.map(({ item }) => item));
      this.next.replaceChildren(
        element("p", {}, data.length ? `These would teach the most, of ${considered} windows that nobody has labelled.` : "Everything is labelled."),
        element("ol", { class: "grid", "aria-label": "To label next" }, data.map((window) => this.window(window))));
    }, this.next);
  }

  window({ item, start_s, end_s, predictions }) {
    const { collection } = this;
    const entry = element("li", {}, element("strong", {}, collection.name(item)), element("br"),
      `${start_s.toFixed(1)} to ${end_s.toFixed(1)} s, ${predictions[0]?.label} ${predictions[0]?.score.toFixed(2)}?`,
      element("div", { class: "row" }, collection.playButton("Play", item, start_s, { "aria-label": `Play ${collection.name(item)} from ${start_s.toFixed(1)} s` }),
        collection.wanted().map((label) => button(label, async () => {
          await collection.label(label, collection.about.granularity === "clip" ? {} : { start_s, end_s }, item);
          entry.remove();
        }))));
    return entry;
  }

  tryOn(file) {
    return this.collection.trying(async () => {
      const query = { head: this.name.value };
      const { data, head } = await send("v1/audio/classifications", query, file, () => {}, file.name);
      this.tried.replaceChildren(element("h3", {}, file.name), bars({ head: head ?? this.name.value, ...data[0] }),
        copyAs(() => ({ path: "v1/audio/classifications", query, file: file.name, python: `print(client.classify(${JSON.stringify(file.name)}, head=${JSON.stringify(this.name.value)}).best)` })));
    }, this.tried);
  }

  export() {
    return this.collection.trying(async () => {
      const blob = await get(`v1/classifiers/${encodeURIComponent(this.name.value)}/file`);
      save(`${this.name.value}.onnx`, blob);
    }, this.tried);
  }
}

const MOST_LETTERS = 64; // of a name
const ENDING = "-labels";

const nameAfter = (collection) => collection.slice(0, MOST_LETTERS - ENDING.length) + ENDING;
