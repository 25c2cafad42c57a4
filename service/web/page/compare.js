// How alike the dropped sounds are: every pair, and a map where a click plays the sound.

import { vector } from "./api.js";
import { copyAs } from "./code.js";
import { byId, button, element, fixed, say } from "./dom.js";
import { analysed } from "./listen.js";
import { PointMap, cosine, plane } from "./map.js";
import { play, playButton } from "./playing.js";

const MOST_IN_TABLE = 40;

const hear = (sound) => play(sound).catch((error) => say(error.message));
const map = new PointMap((point, isPlayed) => isPlayed && hear(point.sound));

let turn = 0; // of what is compared; what was begun before gives way

export async function showComparison(sounds) {
  const mine = ++turn;
  const holder = byId("comparison");
  if (sounds.length < 2) {
    holder.replaceChildren(element("p", {}, "Drop two sounds or more to see how alike they are."));
    return;
  }
  const bar = element("progress", { max: sounds.length, value: 0, "aria-label": "Hearing the sounds" });
  holder.replaceChildren(bar);
  for (const sound of sounds) {
    await analysed(sound);
    if (mine !== turn) return;
    bar.value += 1;
  }
  const heard = sounds.filter((sound) => sound.analysis);
  const left = sounds.filter((sound) => !sound.analysis);
  const vectors = heard.map((sound) => (sound.vector ??= vector(sound.analysis.data[0].embedding)));
  say(left.length ? `${left.length} of ${sounds.length} sounds could not be heard as a whole.` : "");
  const places = plane(vectors);
  const points = heard.map((sound, at) => ({ ...places[at], name: sound.name, sound, label: best(sound) }));
  const files = heard.map((sound) => sound.name);
  const pairs = () => ({ files, cosines: vectors.map((one) => vectors.map((other) => cosine(one, other))) });
  const missing = left.length ? [notHeard(left, () => showComparison(sounds))] : [];
  if (heard.length < 2) {
    holder.replaceChildren(...missing, element("p", {}, "Drop two sounds or more that can be heard to see how alike they are."));
    return;
  }
  holder.replaceChildren(...missing,
    element("div", { class: "panel" }, element("h2", {}, "Map"),
      element("p", { class: "quiet" }, "Sounds that are alike lie close. Click to play; or focus the map, then arrow keys and Enter."), map.element),
    element("div", { class: "panel" }, element("h2", {}, "Every pair"),
      heard.length > MOST_IN_TABLE ? element("p", { class: "quiet" }, `The first ${MOST_IN_TABLE} of ${heard.length} sounds; all are in the JSON.`) : null,
      element("p", { class: "quiet" }, "Cosine of the vectors: 1 is the same, 0 has nothing in common. A number plays the sound of its column."),
      element("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Every pair" }, matrix(heard.slice(0, MOST_IN_TABLE), vectors)),
      copyAs(() => ({ path: "v1/audio/embeddings", query: {}, file: files,
        python: `import numpy as np\n\nfiles = ${JSON.stringify(files)}\nvectors = np.stack([client.embed(file).embedding for file in files])\nvectors /= np.linalg.norm(vectors, axis=1, keepdims=True)\nprint(vectors @ vectors.T)` }), "pairs", pairs)));
  map.show(points);
}

// Which sounds are not compared, and why.
function notHeard(left, again) {
  const why = ({ error, isLong }) => error?.message ?? (isLong ? "longer than a request may be: it is labelled in Listen." : "");
  const mayPass = left.some(({ error }) => error?.mayPass);
  return element("div", { class: "panel" }, element("h2", {}, "Not compared"),
    element("ul", { class: "failures" }, left.map((sound) => element("li", { class: "error" }, element("strong", {}, sound.name), ` ${why(sound)}`))),
    mayPass ? button("Try again", again) : null);
}

const best = (sound) => sound.analysis.data[0].classifications[0]?.predictions[0]?.label;

function matrix(sounds, vectors) {
  const rows = sounds.map((sound, i) => element("tr", {}, element("th", { scope: "row" }, `${i + 1}  ${sound.name}`),
    sounds.map((other, j) => {
      const like = cosine(vectors[i], vectors[j]);
      const cell = element("td", {}, playButton(fixed(like), other.id, 0, () => hear(other), { "aria-label": `${sound.name} and ${other.name}: ${fixed(like)}; play ${other.name}` }));
      cell.style.background = `color-mix(in srgb, var(--accent) ${Math.round(45 * Math.max(0, like))}%, var(--paper))`;
      return cell;
    })));
  const numbers = sounds.map((sound, j) => element("th", { scope: "col", title: sound.name }, String(j + 1)));
  return element("table", { class: "matrix" }, element("thead", {}, element("tr", {}, element("td"), numbers)), element("tbody", {}, rows));
}
