// One collection: add, search, label by keyboard, duplicates, map, export, delete.

import { address, ask, get, send } from "./api.js";
import { copyAs } from "./code.js";
import { button, download, element, errorText, fixed, say } from "./dom.js";
import { ItemSound, forgetHeard } from "./items.js";
import { PointMap } from "./map.js";
import { play } from "./playing.js";
import { TeachingView } from "./teaching.js";

const SHOWN = 200; // items on the page

export class CollectionView {
  constructor(about, sounds, onChange) {
    Object.assign(this, { about, sounds, onChange });
    this.path = `v1/collections/${about.name}`;
    this.items = [];
    this.labels = new Map(); // item -> what it is
    this.at = -1;
    this.heard = new Map(); // item -> its sound
    forgetHeard();
    this.trouble = element("div");
    this.grid = element("ul", { class: "grid", "aria-label": "Items" });
    this.names = element("input", { id: "label-names", placeholder: "bell, other", value: "", oninput: () => this.keys() });
    this.legend = element("div", { class: "legend" });
    this.found = element("div");
    this.near = element("div");
    this.mapHolder = element("div");
    this.teaching = new TeachingView(this);
    this.element = element("div", {}, this.head(), this.trouble, this.searching(), this.labelling(), this.teaching.element, this.seeing());
    this.load();
  }

  python(text) {
    return `collection = client.collection(${JSON.stringify(this.about.name)})\n${text}`;
  }

  // What goes wrong is said where the collection is.
  async trying(work) {
    this.trouble.replaceChildren();
    try {
      return await work();
    } catch (error) {
      this.trouble.replaceChildren(errorText(error));
      return undefined;
    }
  }

  head() {
    const { name, items, windows, bytes, keeps_audio } = this.about;
    const files = element("input", { type: "file", multiple: true, class: "unseen", id: "add-files", onchange: () => this.add([...files.files]) });
    const bar = element("progress", { max: 1, value: 0, hidden: true, "aria-label": "Adding" });
    this.bar = bar;
    return element("div", { class: "panel" }, element("h2", {}, name),
      element("p", { class: "quiet" }, `${items} recordings, ${windows} vectors, ${(bytes / 1e6).toFixed(1)} MB; the audio is ${keeps_audio ? "kept" : "not kept"}.`),
      element("div", { class: "row" },
        element("label", { class: "button main", for: "add-files" }, "Add files"), files,
        this.sounds.length ? button(`Add the ${this.sounds.length} sounds of this tab`, () => this.add(this.sounds.map((sound) => sound.file))) : null,
        button("Download all of it", () => this.trying(() => this.save())),
        button("Delete", () => this.remove())), bar,
      copyAs(() => ({ path: `${this.path}/items`, file: "clip.wav", python: this.python('print(collection.add("clip.wav"))') })));
  }

  async add(files) {
    this.bar.hidden = false;
    let refused = 0;
    for (const [at, file] of files.entries()) {
      await this.trying(async () => {
        await send(`${this.path}/items`, {}, file, (share) => { this.bar.value = (at + share) / files.length; }, file.name);
      });
      refused += this.trouble.childElementCount;
      say(`${at + 1} of ${files.length} files sent.`);
    }
    if (!refused) this.onChange();
    else await this.load();
  }

  async load() {
    await this.trying(async () => {
      this.items = (await get(`${this.path}/items`, { limit: SHOWN })).data;
      this.labels.clear();
      await this.loadLabels().catch((error) => { if (error.status !== 403) throw error; });
    });
    this.keys();
    this.draw();
  }

  async loadLabels() {
    for (let cursor = 0; cursor !== undefined; ) {
      const page = await get(`${this.path}/labels`, { limit: 1000, cursor });
      page.data.forEach((label) => this.note(label));
      cursor = page.next_cursor;
    }
    if (!this.names.value) this.names.value = [...new Set([...this.labels.values()].flat().map(({ label }) => label))].join(", ");
  }

  note(label) {
    this.labels.set(label.item, [...(this.labels.get(label.item) ?? []), label]);
  }

  sound(id) {
    const item = this.items.find((one) => one.id === id);
    const mine = this.sounds.find((sound) => sound.name === item?.file);
    if (mine && !item.has_audio) return mine;
    if (!this.heard.has(id)) {
      this.heard.set(id, new ItemSound(`${this.path}/items/${encodeURIComponent(id)}`, item?.file ?? id));
    }
    return this.heard.get(id);
  }

  playItem(id, start = 0) {
    return this.trying(() => play(this.sound(id), start));
  }

  searching() {
    const file = element("input", { type: "file", class: "unseen", id: "like-file", onchange: () => file.files[0] && this.search(null, file.files[0]) });
    return element("div", { class: "panel" }, element("h3", {}, "Search by example"),
      element("div", { class: "row" }, element("label", { class: "button main", for: "like-file" }, "Like this file"), file,
        element("span", { class: "quiet" }, "or press “Like it” at an item below.")), this.found);
  }

  // Hits for a file, or for an item of the collection.
  search(id, file) {
    return this.trying(async () => {
      const json = { positive: [{ id }], top_k: 12 };
      const answer = id === null
        ? await send(`${this.path}/search`, { }, file, () => {}, file.name)
        : await ask("POST", `${this.path}/search`, { json });
      const asked = () => id === null
        ? { path: `${this.path}/search`, file: file.name, python: this.python(`for hit in collection.search(${JSON.stringify(file.name)}):\n    print(hit.score, hit.id, hit.file)`) }
        : { path: `${this.path}/search`, json, python: this.python(`for hit in collection.search(like=[${JSON.stringify(id)}], top_k=12):\n    print(hit.score, hit.id, hit.file)`) };
      this.found.replaceChildren(
        element("h3", {}, `Like ${file?.name ?? this.name(id)}`),
        element("ol", { class: "grid", "aria-label": "Hits" }, answer.data.map((hit) => element("li", {},
          element("strong", {}, hit.file ?? hit.id), element("br"),
          `cosine ${fixed(hit.score)}`, hit.percentile === undefined ? "" : `, closer than ${hit.percentile.toFixed(1)} % of pairs`,
          element("div", { class: "row" }, button("Play", () => this.playItem(hit.id, hit.start_s)), button("Like it", () => this.search(hit.id)))))),
        copyAs(asked, "hits", () => answer));
      say(`${answer.data.length} hits.`);
    });
  }

  name(id) {
    return this.items.find((item) => item.id === id)?.file ?? id;
  }

  labelling() {
    const holder = element("div", { class: "panel" }, element("h3", {}, "Label"),
      element("div", { class: "row" }, element("label", { for: "label-names" }, "Labels"), this.names),
      this.legend, this.grid,
      copyAs(() => ({ path: `${this.path}/labels`, json: { labels: [{ item: this.items[Math.max(0, this.at)]?.id ?? "clip", label: this.wanted()[0] ?? "bell" }] },
        python: this.python(`print(collection.label(${JSON.stringify(this.items[Math.max(0, this.at)]?.id ?? "clip")}, ${JSON.stringify(this.wanted()[0] ?? "bell")}))`) }),
      `${this.about.name}.labels`, () => [...this.labels.values()].flat()));
    this.grid.addEventListener("keydown", (event) => this.key(event));
    return holder;
  }

  wanted() {
    return this.names.value.split(",").map((name) => name.trim()).filter(Boolean).slice(0, 9);
  }

  keys() {
    const act = (key, name, work) => element("button", { type: "button", onclick: work }, element("kbd", {}, key), ` ${name}`);
    const named = this.wanted().map((name, at) => act(String(at + 1), name, () => this.label(name)));
    this.legend.replaceChildren(element("span", { class: "quiet" }, "Choose an item, then press or type"), ...named,
      act("Space", "plays", () => this.items[this.at] && this.playItem(this.items[this.at].id)), act("⌫", "takes back", () => this.items[this.at] && this.unlabel()),
      element("span", { class: "quiet" }, element("kbd", {}, "←"), " ", element("kbd", {}, "→"), " go on"));
  }

  draw() {
    this.grid.replaceChildren(...this.items.map((item, at) => element("li", { tabindex: at === Math.max(0, this.at) ? 0 : -1, "aria-current": String(at === this.at), onfocus: () => this.choose(at) },
      element("strong", {}, item.file ?? item.id), element("br"),
      element("span", { class: "quiet" }, `${item.duration_s.toFixed(1)} s `),
      element("span", { class: "good" }, (this.labels.get(item.id) ?? []).map(({ label, verdict }) => (verdict === "positive" ? label : `${verdict}: ${label}`)).join(", ")),
      element("div", { class: "row" }, button("Play", () => this.playItem(item.id), { tabindex: -1 }), button("Like it", () => this.search(item.id), { tabindex: -1 })))));
  }

  choose(at) {
    if (at === this.at) return;
    const all = this.grid.children;
    all[this.at]?.setAttribute("aria-current", "false");
    this.at = Math.max(0, Math.min(at, this.items.length - 1));
    for (const [n, one] of [...all].entries()) one.tabIndex = n === this.at ? 0 : -1;
    all[this.at]?.setAttribute("aria-current", "true");
  }

  key(event) {
    if (event.target.tagName === "BUTTON" && event.key === " ") return;
    const digit = Number(event.key);
    const go = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (go) this.go(go);
    else if (event.key === " ") this.playItem(this.items[this.at].id);
    else if (event.key === "Backspace") this.unlabel();
    else if (digit >= 1 && this.wanted()[digit - 1]) this.label(this.wanted()[digit - 1]);
    else return;
    event.preventDefault();
  }

  go(by) {
    this.choose(this.at + by);
    this.grid.children[this.at]?.focus();
  }

  label(label, stretch = {}, item = this.items[this.at]?.id) {
    if (!item) return say("Choose an item first.");
    return this.trying(async () => {
      const answer = await ask("POST", `${this.path}/labels`, { json: { labels: [{ item, label, ...stretch }] } });
      answer.data.forEach((one) => this.note(one));
      say(`${this.name(item)} is ${label}.`);
      const was = this.at;
      this.draw();
      if (this.items[was]?.id === item) { this.at = was; this.go(1); }
    });
  }

  unlabel() {
    const { id } = this.items[this.at];
    const last = this.labels.get(id)?.pop();
    if (last) this.trying(async () => {
      await ask("DELETE", `${this.path}/labels/${last.id}`);
      const was = this.at;
      this.draw();
      this.at = was;
      this.go(0);
      say(`${this.name(id)} is not ${last.label} any more.`);
    });
  }

  seeing() {
    return element("div", { class: "panel" }, element("h3", {}, "See"),
      element("div", { class: "row" }, button("Near-duplicates", () => this.duplicates()), button("Map", () => this.map())), this.near, this.mapHolder);
  }

  duplicates() {
    return this.trying(async () => {
      const answer = await get(`${this.path}/duplicates`);
      this.near.replaceChildren(
        element("p", {}, answer.pairs ? `${answer.pairs} pairs are closer than neighbours are by chance.` : "No two items are closer than neighbours are by chance."),
        element("ul", { class: "grid" }, answer.data.map(({ ids, score }) => element("li", {}, `cosine ${score.toFixed(3)}`,
          element("div", { class: "row" }, ids.map((id) => button(this.name(id), () => this.playItem(id))))))),
        copyAs(() => ({ path: `${this.path}/duplicates`, python: this.python("print(collection.duplicates())") }), "duplicates", () => answer));
    });
  }

  map() {
    return this.trying(async () => {
      const answer = await get(`${this.path}/map`);
      const map = new PointMap((point, isPlayed) => isPlayed && this.playItem(point.id), `Map of ${this.about.name}`);
      this.mapHolder.replaceChildren(
        element("p", { class: "quiet" }, "What sounds alike lies together; colours are labels, or groups. Click to play; or focus the map, then arrow keys and Enter."), map.element,
        copyAs(() => ({ path: `${this.path}/map`, python: this.python("for place in collection.map():\n    print(place.x, place.y, place.cluster, place.file)") }), "map", () => answer));
      map.show(answer.data.map(({ id, file, x, y, cluster }) => ({ id, x, y, name: file ?? id, label: this.labels.get(id)?.at(-1)?.label ?? `group ${cluster + 1}` })));
    });
  }

  async save() {
    const all = { collection: this.about, items: [], labels: [...this.labels.values()].flat() };
    for (let cursor = 0; cursor !== undefined; ) {
      const page = await get(`${this.path}/items`, { limit: 1000, cursor });
      all.items.push(...page.data);
      cursor = page.next_cursor;
    }
    download(`${this.about.name}.json`, all);
  }

  remove() {
    if (!confirm(`Delete ${this.about.name} with all that is in it?`)) return;
    this.trying(async () => {
      await ask("DELETE", this.path);
      this.onChange();
    });
  }

  get address() {
    return address(this.path);
  }
}
