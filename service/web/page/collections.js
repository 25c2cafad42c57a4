// Collections: make one, choose one. What is done with the chosen one is in collection.js.

import { ask, get } from "./api.js";
import { CollectionView } from "./collection.js";
import { copyAs } from "./code.js";
import { byId, element, errorText, say, whenIdle } from "./dom.js";
import { NAMED } from "./words.js";

let chosen = null;
let view = null; // of the chosen one

// What is dropped on the page while a collection is shown goes into it; -> whether one is.
export function takeDropped(files) {
  view?.adding.add(files);
  return view !== null;
}

export async function showCollections(sounds) {
  const holder = byId("collection");
  if (view?.adding.isBusy && view.about.name === chosen) return; // it is at work, and goes on being shown
  view = null;
  holder.replaceChildren(element("p", { class: "quiet" }, "…"));
  let found;
  try {
    found = (await get("v1/collections")).data;
  } catch (error) {
    holder.replaceChildren(errorText(error, () => showCollections(sounds)));
    return;
  }
  if (!found.some(({ name }) => name === chosen)) chosen = found[0]?.name ?? null;
  const select = element("select", { id: "collection-name" },
    found.map(({ name }) => element("option", { value: name, selected: name === chosen }, name)));
  whenIdle("change", select, () => { chosen = select.value; return showCollections(sounds); });
  const about = found.find(({ name }) => name === chosen);
  holder.replaceChildren(
    element("div", { class: "panel" },
      found.length ? null : element("p", {}, "A collection keeps recordings: find those that sound like an example, label them, and make a classifier of the labels."),
      found.length ? element("div", { class: "row" }, element("label", { for: "collection-name" }, "Collection"), select) : null,
      element("details", { open: !found.length }, element("summary", {}, "Make a collection"), form(sounds))));
  if (!about) return;
  view = new CollectionView(about, sounds, () => showCollections(sounds));
  holder.append(view.element);
}

function form(sounds) {
  const name = element("input", { id: "new-name", ...NAMED, placeholder: "birds", size: 14 });
  const size = element("select", { id: "new-window" }, element("option", { value: "" }, "each recording as a whole"),
    [1, 2, 5].map((s) => element("option", { value: s }, `windows of ${s} s`)));
  const keeps = element("input", { type: "checkbox", id: "new-audio", checked: true });
  const trouble = element("div");
  const terms = () => ({ ...(size.value ? { granularity: "window", window_s: Number(size.value) } : { granularity: "clip" }), keeps_audio: keeps.checked });
  const path = () => `v1/collections/${encodeURIComponent(name.value.trim() || "birds")}`;
  const made = async () => {
    try {
      await ask("PUT", path(), { json: terms() });
      chosen = name.value.trim();
      say(`${chosen} is there.`);
      await showCollections(sounds);
    } catch (error) {
      trouble.replaceChildren(errorText(error));
    }
  };
  return whenIdle("submit", element("form", {}, element("div", { class: "row" },
    element("label", { for: "new-name" }, "called"), name, element("label", { for: "new-window" }, "of"), size,
    element("label", {}, keeps, " keep the audio, to play it"), element("button", { class: "main" }, "Make")), trouble,
    copyAs(() => ({ path: path(), method: "PUT", json: terms(),
      python: `print(client.collection(${JSON.stringify(name.value || "birds")}).make(${Object.entries(terms()).map(([k, v]) => `${k}=${v === true ? "True" : v === false ? "False" : JSON.stringify(v)}`).join(", ")}))` }))), made);
}
