// One collection: add, search, label by keyboard, duplicates, map, export, delete.

import { addingTo } from "./adding.js";
import { ask, get, send } from "./api.js";
import { copyAs } from "./code.js";
import { button, byId, download, element, errorText, fileField, fixed, save, say, seconds, short } from "./dom.js";
import { ItemSound, forgetHeard } from "./items.js";
import { PointMap } from "./map.js";
import { play, playButton } from "./playing.js";
import { TeachingView } from "./teaching.js";
import { labelsIn, listed } from "./words.js";

const SHOWN = 200; // items at a time

export class CollectionView {
  constructor(about, sounds, onChange) {
    Object.assign(this, { about, sounds, onChange });
    this.path = `v1/collections/${encodeURIComponent(about.name)}`;
    this.items = [];
    this.cursor = 0; // where the items begin that are not shown
    this.names = new Map(); // item -> its file
    this.labels = new Map(); // item -> what it is
    this.at = -1;
    this.heard = new Map(); // item -> its sound
    forgetHeard();
    this.trouble = element("div", { class: "trouble" });
    this.size = element("p", { class: "quiet" });
    this.adding = addingTo(this.path, () => this.refresh());
    this.grid = element("ul", { class: "grid", "aria-label": "Items" });
    this.more = element("div", { class: "row" });
    this.kinds = element("input", { id: "label-names", placeholder: "bell, other", value: "", oninput: () => this.keys() });
    this.legend = element("div", { class: "legend" });
    this.found = element("div");
    this.seen = element("select", { id: "seen-label" }); // of large collections, a part can be seen
    this.near = element("div");
    this.mapHolder = element("div");
    this.teaching = new TeachingView(this);
    this.element = element("div", {}, this.head(), this.trouble, this.searching(), this.labelling(), this.teaching.element, this.seeing());
    this.load();
  }

  // The same in Python.
  python(text) {
    return `collection = client.collection(${JSON.stringify(this.about.name)})\n${text}`;
  }

  // What goes wrong is said where the answer would be, or where the collection is.
  async trying(work, place = this.trouble) {
    this.trouble.replaceChildren();
    try {
      return await work();
    } catch (error) {
      place.replaceChildren(errorText(error, () => this.trying(work, place)));
      const isElsewhere = error.status === 404 && place === this.trouble; // changed in another tab, or by somebody else
      if (isElsewhere) place.firstChild.append(" ", button("Show what is there now", () => this.onChange()));
      return undefined;
    }
  }

  head() {
    this.tellSize();
    return element("div", { class: "panel" }, element("h2", {}, this.about.name), this.size,
      element("div", { class: "row" },
        element("label", { class: "button main", for: "add-files" }, "Add files"), fileField("add-files", (files) => this.adding.add(files), { multiple: true }),
        this.sounds.length ? button(this.sounds.length > 1 ? `Add the ${this.sounds.length} sounds of this tab` : "Add the sound of this tab", () => this.adding.add(this.sounds.map((sound) => sound.file))) : null,
        button("Download list and labels", () => this.trying(() => this.save())),
        button("Download vectors", () => this.trying(() => this.saveVectors())),
        button("Delete", () => this.remove())), this.adding.element,
      copyAs(() => ({ path: `${this.path}/items`, file: "clip.wav", python: this.python('print(collection.add("clip.wav"))') })));
  }

  tellSize() {
    const { items, windows, bytes, keeps_audio } = this.about;
    this.size.textContent = `${items} recordings, ${windows} vectors, ${(bytes / 1e6).toFixed(1)} MB; the audio is ${keeps_audio ? "kept" : "not kept"}. Drop files on this page to add them.`;
  }

  refresh() {
    return this.trying(async () => {
      this.about = await get(this.path);
      this.tellSize();
      await this.load();
    });
  }

  // As many items as are shown already, from the first on; what is said of them.
  load() {
    return this.trying(async () => {
      const shown = this.items.length;
      [this.items, this.cursor] = [[], 0];
      do await this.loadMore(); while (this.cursor !== undefined && this.items.length < shown);
      this.labels.clear();
      await this.loadLabels().catch((error) => { if (error.status !== 403) throw error; });
      this.keys();
      this.draw();
    });
  }

  async loadMore() {
    const page = await get(`${this.path}/items`, { limit: SHOWN, cursor: this.cursor });
    this.items.push(...page.data);
    this.cursor = page.next_cursor;
    page.data.forEach(({ id, file }) => this.names.set(id, file ?? id));
  }

  async loadLabels() {
    for (let cursor = 0; cursor !== undefined; ) {
      const page = await get(`${this.path}/labels`, { limit: 1000, cursor });
      page.data.forEach((label) => this.note(label));
      cursor = page.next_cursor;
    }
    if (!this.kinds.value) this.kinds.value = listed([...new Set([...this.labels.values()].flat().map(({ label }) => label))]);
  }

  note(label) {
    this.labels.set(label.item, [...(this.labels.get(label.item) ?? []), label]);
  }

  sound(id) {
    const mine = this.sounds.find((sound) => sound.name === this.name(id));
    if (mine && !this.about.keeps_audio) return mine;
    if (!this.heard.has(id)) this.heard.set(id, new ItemSound(this.itemPath(id), this.name(id)));
    return this.heard.get(id);
  }

  itemPath(id) {
    return `${this.path}/items/${encodeURIComponent(id)}`;
  }

  playItem(id, start = 0) {
    return this.trying(() => play(this.sound(id), start));
  }

  playButton(text, id, start, attributes) {
    return playButton(text, this.sound(id).id, start, () => this.playItem(id, start), attributes);
  }

  searching() {
    const file = fileField("like-file", ([chosen]) => this.search(null, chosen));
    return element("div", { class: "panel" }, element("h3", {}, "Search by example"),
      element("div", { class: "row" }, element("label", { class: "button main", for: "like-file" }, "Like this file"), file,
        element("span", { class: "quiet" }, "or press “Like it” at an item below.")), this.found);
  }

  // Hits for a file, for an item of the collection, or for a window of it.
  search(id, file, window = {}) {
    return this.trying(async () => {
      this.found.replaceChildren(element("progress", { "aria-label": "Searching" }));
      const example = { id, ...window };
      const json = { positive: [example], top_k: 12 };
      const answer = id === null
        ? await send(`${this.path}/search`, { }, file, () => {}, file.name)
        : await ask("POST", `${this.path}/search`, { json });
      const asked = () => id === null
        ? { path: `${this.path}/search`, file: file.name, python: this.python(`for hit in collection.search(${JSON.stringify(file.name)}):\n    print(hit.score, hit.id, hit.file)`) }
        : { path: `${this.path}/search`, json, python: this.python(`for hit in collection.search(like=[${JSON.stringify(window.end_s ? example : id)}], top_k=12):\n    print(hit.score, hit.id, hit.file)`) };
      answer.data.forEach((hit) => this.names.set(hit.id, hit.file ?? hit.id));
      this.found.replaceChildren(
        element("h3", {}, `Like ${file?.name ?? this.name(id)}${window.end_s ? `, ${seconds(window.start_s)} to ${seconds(window.end_s)}` : ""}`),
        element("p", {}, answer.data.length ? "" : this.about.items ? "Nothing was found." : "There is nothing in the collection yet: add files."),
        element("ol", { class: "grid", "aria-label": "Hits" }, answer.data.map((hit) => element("li", {},
          element("strong", {}, hit.file ?? hit.id), element("br"),
          this.isOfWindows() ? `${seconds(hit.start_s)} to ${seconds(hit.end_s)}, ` : "",
          `cosine ${fixed(hit.score)}`, hit.percentile === undefined ? "" : `, closer than ${hit.percentile.toFixed(1)} % of pairs`,
          element("div", { class: "row" }, this.playButton("Play", hit.id, hit.start_s ?? 0, { "aria-label": `Play ${hit.file ?? hit.id}` }), button("Like it", () => this.search(hit.id, undefined, this.isOfWindows() ? { start_s: hit.start_s, end_s: hit.end_s } : {}), { "aria-label": `Like it: ${hit.file ?? hit.id}` }))))),
        copyAs(asked, "hits", () => answer));
      say(`${answer.data.length} hits.`);
    }, this.found);
  }

  isOfWindows() {
    return this.about.granularity === "window";
  }

  name(id) {
    return this.names.get(id) ?? id;
  }

  // The files of items that are not among those on the page.
  async loadNames(ids) {
    for (const id of ids.filter((one) => !this.names.has(one))) this.names.set(id, (await get(this.itemPath(id))).file ?? id);
  }

  labelling() {
    const holder = element("div", { class: "panel" }, element("h3", {}, "Label"),
      element("div", { class: "row" }, element("label", { for: "label-names" }, "Labels"), this.kinds),
      this.legend, this.grid, this.more,
      copyAs(() => ({ path: `${this.path}/labels`, json: { labels: [{ item: this.items[Math.max(0, this.at)]?.id ?? "clip", label: this.wanted()[0] ?? "bell" }] },
        python: this.python(`print(collection.label(${JSON.stringify(this.items[Math.max(0, this.at)]?.id ?? "clip")}, ${JSON.stringify(this.wanted()[0] ?? "bell")}))`) }),
      `${this.about.name}.labels`, () => [...this.labels.values()].flat()));
    this.grid.addEventListener("keydown", (event) => this.key(event));
    return holder;
  }

  wanted() {
    return labelsIn(this.kinds.value);
  }

  keys() {
    const act = (key, name, work) => button(key ? [element("kbd", {}, key), ` ${name}`] : [name], work);
    const named = this.wanted().map((name, at) => act(at < 9 ? String(at + 1) : "", name, () => this.label(name)));
    const first = named.length ? "Choose an item, then press or type" : "Name some labels above: the first nine get digits. Choose an item, then press or type";
    this.legend.replaceChildren(element("span", { class: "quiet" }, first), ...named,
      act("Space", "plays", () => this.items[this.at] && this.playItem(this.items[this.at].id)), act("⌫", "takes back", () => this.items[this.at] && this.unlabel()),
      element("span", { class: "quiet" }, element("kbd", {}, "←"), " ", element("kbd", {}, "→"), " go on"));
  }

  labelled({ id }) {
    return (this.labels.get(id) ?? []).map(({ label, verdict }) => (verdict === "positive" ? label : `${verdict}: ${label}`)).join(", ");
  }

  // What is read out of an item.
  told(item) {
    return [this.name(item.id), seconds(item.duration_s), this.labelled(item)].filter(Boolean).join(", ");
  }

  draw() {
    const wasUsed = this.grid.contains(document.activeElement);
    this.grid.replaceChildren(...this.items.map((item, at) => element("li", { "aria-label": this.told(item), "aria-current": String(at === this.at), onfocusin: () => this.choose(at) },
      element("strong", {}, item.file ?? item.id), element("br"),
      element("span", { class: "quiet" }, `${seconds(item.duration_s)} `),
      element("span", { class: "good" }, this.labelled(item)),
      element("div", { class: "row" }, this.playButton("Play", item.id, 0, { "aria-label": `Play ${this.name(item.id)}` }), button("Like it", () => this.search(item.id), { "aria-label": `Like it: ${this.name(item.id)}` })))));
    this.offerSeen();
    this.reach();
    if (wasUsed) this.grid.children[Math.max(0, this.at)]?.focus();
    const more = async () => {
      const shown = this.items.length;
      await this.trying(() => this.loadMore());
      this.draw();
      if (this.items.length > shown) this.go(shown - this.at);
    };
    this.more.replaceChildren(...(this.items.length < this.about.items && this.cursor !== undefined
      ? [element("span", { class: "quiet" }, `The first ${this.items.length} of ${this.about.items}.`), button(`Show ${SHOWN} more`, more)] : []));
  }

  choose(at) {
    if (at === this.at) return;
    const all = this.grid.children;
    all[this.at]?.setAttribute("aria-current", "false");
    this.at = Math.max(0, Math.min(at, this.items.length - 1));
    this.reach();
    all[this.at]?.setAttribute("aria-current", "true");
  }

  // The Tab key goes to one item and its buttons; the arrow keys go to the others.
  reach() {
    for (const [n, one] of [...this.grid.children].entries()) {
      for (const part of [one, ...one.querySelectorAll("button")]) part.tabIndex = n === Math.max(0, this.at) ? 0 : -1;
    }
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

  // What is labelled goes on to the next item at once: whoever knows them is faster than an answer.
  label(label, stretch = {}, given = undefined) {
    const item = given ?? this.items[this.at]?.id;
    if (!item) return say("Choose an item first.");
    if (!given) this.go(1);
    return this.trying(async () => {
      const answer = await ask("POST", `${this.path}/labels`, { json: { labels: [{ item, label, ...stretch }] } });
      answer.data.forEach((one) => this.note(one));
      say(`${short(this.name(item))} is ${label}.`);
      this.drawLabels(item);
    });
  }

  drawLabels(id) {
    this.offerSeen();
    const at = this.items.findIndex((item) => item.id === id);
    if (at < 0) return; // it is not among those that are shown
    this.grid.children[at].setAttribute("aria-label", this.told(this.items[at]));
    this.grid.children[at].querySelector(".good").textContent = this.labelled(this.items[at]);
  }

  unlabel() {
    const { id } = this.items[this.at];
    const last = this.labels.get(id)?.at(-1);
    if (!last) return say(`${short(this.name(id))} has no label.`);
    this.labels.set(id, this.labels.get(id).filter((label) => label !== last)); // at once: no press is for it again
    return this.trying(async () => {
      await ask("DELETE", `${this.path}/labels/${last.id}`).catch((error) => { this.note(last); throw error; });
      this.drawLabels(id);
      this.go(0);
      say(`${short(this.name(id))} is not ${last.label} any more.`);
    });
  }

  seeing() {
    return element("div", { class: "panel" }, element("h3", {}, "See"),
      element("div", { class: "row" }, button("Near-duplicates", () => this.duplicates()), button("Map", () => this.map()),
        element("label", { for: "seen-label" }, "among"), this.seen), this.near, this.mapHolder);
  }

  // Everything, or what has a label.
  offerSeen() {
    const was = this.seen.value;
    const labels = [...new Set([...this.labels.values()].flat().map(({ label }) => label))].sort();
    this.seen.replaceChildren(element("option", { value: "" }, "everything"),
      ...labels.map((label) => element("option", { value: label, selected: label === was }, label)));
  }

  // The filter of what is chosen to be seen, for a request and in Python.
  filter() {
    const json = JSON.stringify({ labels: [this.seen.value] });
    return this.seen.value ? { query: { filter: json }, python: `filter=${json}` } : { query: {}, python: "" };
  }

  duplicates() {
    const { query, python } = this.filter();
    return this.trying(async () => {
      this.near.replaceChildren(element("progress", { "aria-label": "Looking for near-duplicates" }));
      const answer = await get(`${this.path}/duplicates`, query);
      await this.loadNames(answer.data.flatMap(({ ids }) => ids));
      this.near.replaceChildren(
        element("p", {}, answer.pairs ? `${answer.pairs} pairs are closer than neighbours are by chance.` : "No two items are closer than neighbours are by chance."),
        element("ul", { class: "grid" }, answer.data.map(({ ids, score }) => element("li", {}, `cosine ${score.toFixed(3)}`,
          element("div", { class: "row" }, ids.map((id) => this.playButton(this.name(id), id, 0)))))),
        copyAs(() => ({ path: `${this.path}/duplicates`, query, python: this.python(`print(collection.duplicates(${python}))`) }), "duplicates", () => answer));
    }, this.near);
  }

  map() {
    const { query, python } = this.filter();
    return this.trying(async () => {
      this.mapHolder.replaceChildren(element("progress", { "aria-label": "Drawing the map" }));
      const answer = await this.places(query);
      answer.data.forEach(({ id, file }) => this.names.set(id, file ?? id));
      const map = new PointMap((point, isPlayed) => isPlayed && this.playItem(point.id), `Map of ${this.about.name}`);
      this.mapHolder.replaceChildren(
        element("p", { class: "quiet" }, "What sounds alike lies together; colours are labels, or groups. Click to play; or focus the map, then arrow keys and Enter."), map.element,
        copyAs(() => ({ path: `${this.path}/map`, query, python: this.python(`for place in collection.map(${python}):\n    print(place.x, place.y, place.cluster, place.file)`) }), "map", () => answer));
      map.show(answer.data.map(({ id, file, x, y, cluster }) => ({ id, x, y, name: file ?? id, label: this.labels.get(id)?.at(-1)?.label ?? `group ${cluster + 1}` })));
    }, this.mapHolder);
  }

  async places(query) {
    try {
      return await get(`${this.path}/map`, query);
    } catch (error) {
      if (error.status === 413) error.message += this.seen.length > 1 ? " Choose a label above." : " Label some items, then choose a label above.";
      throw error;
    }
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

  async saveVectors() {
    save(`${this.about.name}.parquet`, await get(`${this.path}/vectors`));
  }

  remove() {
    if (!confirm(`Delete ${this.about.name} with all that is in it?`)) return;
    return this.trying(async () => {
      await ask("DELETE", this.path);
      this.adding.forget();
      await this.onChange();
      byId("collection-name")?.focus(); // not on what deletes the next one
    });
  }
}
