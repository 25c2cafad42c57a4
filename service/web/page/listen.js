// The view of one sound: what it is, over time and as a whole, and how to ask for that in code.

import { get, send, sendLong } from "./api.js";
import { copyAs, keywords } from "./code.js";
import { button, byId, element, errorText, say, sayHowFar, seconds, short, whenIdle } from "./dom.js";
import { isLong } from "./limits.js";
import { Player } from "./player.js";
import { Track, forgetCharts } from "./track.js";
import { bars, quality } from "./words.js";

const DIFFERENT_S = 0.25; // more than encoders put before and behind a sound

let player = null;
let shown = null;

export const current = () => player;

// What the encoder and all classifiers say of a sound as a whole; asked once, unless it failed for
// something that passes.
export function analysed(sound, onProgress = () => {}) {
  if (!sound.asked) sound.error = null;
  sound.asked ??= ask(sound, onProgress).catch((error) => {
    sound.error = error;
    if (error.mayPass) sound.asked = null;
  });
  return sound.asked;
}

async function ask(sound, onProgress) {
  const started = performance.now();
  await sound.look();
  sound.isLong = await isLong(sound.file, sound.duration);
  if (sound.isLong) return;
  let answer;
  try {
    answer = await send("v1/audio/analyze", { output: "base64", top_k: 5 }, sound.file, onProgress, sound.name);
  } catch (error) {
    sound.isLong = error.isTooLong;
    if (!sound.isLong) throw error;
    return;
  }
  sound.analysis = answer;
  sound.duration ??= answer.data[0].duration_s;
  sound.took_s = (performance.now() - started) / 1000;
}

export async function show(sound) {
  player?.close();
  player = null;
  shown = sound;
  const holder = byId("sound");
  const bar = element("progress", { max: 1, value: 0, "aria-label": "Progress" });
  holder.replaceChildren(element("h2", {}, sound.name), bar);
  const waiting = element("progress", { max: 1, value: 0, "aria-label": `Sending ${sound.name}` });
  const asked = analysed(sound, (share) => { waiting.value = share; }); // at once: it matters most
  const opened = sound.open((share) => { bar.value = share; });
  await opened.catch(() => {}); // what cannot be read cannot be sent either, and that is told
  if (shown !== sound) return;
  const seen = element("div");
  const whole = element("div", {}, waiting);
  holder.replaceChildren(element("h2", {}, sound.name), seen, whole);
  if (sound.isPlayable) see(sound, seen);
  if (!sound.analysis) say(`Sending ${short(sound.name)} …`);
  await asked;
  if (shown !== sound) return;
  if (!sound.error && (!sound.isPlayable || hearsAnother(sound))) await seeDecoded(sound, seen);
  if (shown !== sound) return;
  whole.replaceChildren(...results(sound));
}

// The browser reads another recording than the service: of files that were joined, or cut off.
function hearsAnother({ analysis, duration, isDecoded }) {
  return analysis !== null && !isDecoded && Math.abs(analysis.data[0].duration_s - duration) > DIFFERENT_S;
}

function see(sound, holder) {
  player?.close();
  player = new Player(sound);
  player.again = () => (sound.error ? show(sound) : player.picture.fetch()); // what failed for one reason is tried with one press
  player.onunplayable = () => shown === sound && hearDecoded(sound, holder);
  holder.replaceChildren(player.element);
  player.start();
}

// What turns out to be unplayable when it is played plays once the service has decoded it.
async function hearDecoded(sound, holder) {
  const wasUsed = holder.contains(document.activeElement);
  await seeDecoded(sound, holder);
  if (shown !== sound || !sound.isDecoded) return;
  if (wasUsed) player.play.focus();
  await player.toggle();
}

// What this browser cannot decode, or decodes otherwise, is drawn and played as the service hears it.
async function seeDecoded(sound, holder) {
  const told = (text) => holder.replaceChildren(element("p", { class: "quiet" }, text));
  if (sound.isLong) return told("This browser cannot decode the format, and the recording is too long for the service to do it here: it is labelled, but not drawn.");
  told("This browser cannot decode the format: the service does …");
  try {
    await sound.openDecoded();
    if (shown === sound) see(sound, holder);
  } catch (error) {
    holder.replaceChildren(errorText(error));
  }
}

function results(sound) {
  if (sound.error) {
    say("");
    return [errorText(sound.error, () => show(sound))];
  }
  if (sound.isLong) {
    say(`${short(sound.name)} is long${sound.duration ? `: ${seconds(sound.duration)}` : ""}.`);
    return [overTime(sound)];
  }
  const [file] = sound.analysis.data;
  const best = file.classifications.map((one) => `${one.head}: ${one.novelty.is_novel ? "nothing that it knows" : one.predictions[0]?.label}`).join(", ");
  say(`${short(sound.name)}: ${best || "its vector is there"}.`);
  const asked = () => ({ path: "v1/audio/analyze", query: { top_k: 5 }, file: sound.name,
    python: `answer = client.analyze(${JSON.stringify(sound.name)}, top_k=5)\nfor labels in answer.labels:\n    print(labels.head, labels.best, labels.novelty)\nprint(answer.embedding.shape)` });
  return [
    element("div", { class: "cards" }, file.classifications.map(bars), file.quality ? quality(file.quality) : null),
    copyAs(asked, sound.name, () => sound.analysis),
    sound.isPlayable ? overTime(sound) : null,
    selected(sound),
  ].filter(Boolean);
}

// A part of the recording that is drawn with the pointer, or given in seconds.
function selected(sound) {
  if (!sound.isDecodable) return null;
  const fields = ["from", "to"].map((name) => element("input", { type: "number", min: 0, step: "any", size: 6, id: `part-${name}` }));
  const holder = element("div", { class: "cards" });
  const run = async () => {
    const [start, end] = fields.map((field) => Number(field.value));
    holder.replaceChildren(element("progress", { "aria-label": "Working" }));
    try {
      const answer = await send("v1/audio/analyze", {}, sound.part(start, end || sound.duration));
      holder.replaceChildren(...answer.data[0].classifications.map(bars));
    } catch (error) {
      holder.replaceChildren(errorText(error));
    }
  };
  if (player) player.onselect = (start, end) => {
    [fields[0].value, fields[1].value] = [start.toFixed(2), end.toFixed(2)];
    run();
  };
  const asked = () => {
    const query = { start_s: Number(fields[0].value) || 0, end_s: Number(fields[1].value) || sound.duration };
    return { path: "v1/audio/analyze", query, file: sound.name,
      python: `print(client.analyze(${JSON.stringify(sound.name)}${keywords(query)}).labels)` };
  };
  return element("div", { class: "panel" },
    element("h3", {}, "A part of it"),
    element("p", { class: "quiet" }, "Draw over the waveform, or give seconds."),
    whenIdle("submit", element("form", { class: "row" },
      element("label", { for: "part-from" }, "from"), fields[0], element("label", { for: "part-to" }, "to"), fields[1],
      element("button", {}, "What is in this part?")), run),
    holder, copyAs(asked));
}

// Labels over time, of all classifiers or of some; long recordings answer while they are computed. What
// was begun for a sound goes on, and is there when the sound is shown again.
function overTime(sound) {
  sound.overTime ??= labelsOverTime(sound);
  sound.overTime.draw();
  return sound.overTime.element;
}

function labelsOverTime(sound) {
  const holder = element("div", { class: "panel" }, element("h3", {}, "Over time"));
  const boxes = element("span", { class: "row", role: "group", "aria-label": "Classifiers" });
  const size = element("select", { id: "window" }, [1, 2, 5].map((s) => element("option", { value: s }, `${s} s`)));
  const progress = element("progress", { max: 1, value: 0, hidden: true, "aria-label": "Labels over time" });
  const charts = element("div");
  let stored = {};
  let tracks = new Map(); // classifier -> its row under the waveform
  const start = button(sound.isLong ? "Label all of it" : "Label", () => run(), { class: "main", disabled: true }); // until there is something to choose
  const asked = () => ({ path: "v1/audio/classifications",
    query: { classifier: heads().join(","), granularity: "window", window_s: Number(size.value), ...(sound.isLong ? { stream: true } : {}) },
    file: sound.name,
    python: sound.isLong
      ? `recording = client.stream_labels(${JSON.stringify(sound.name)}, classifier=${JSON.stringify(heads().join(","))}, window_s=${size.value})\nfor window in recording:\n    print(window.start_s, [labels.best for labels in window.labels])`
      : `answer = client.classify(${JSON.stringify(sound.name)}, classifier=${JSON.stringify(heads().join(","))}, window_s=${size.value})\nfor window in answer.windows:\n    print(window.start_s, [labels.best for labels in window.labels])` });
  const heads = () => [...boxes.querySelectorAll("input:checked")].map((box) => box.value);
  const offer = () => get("v1/classifiers").then(({ data }) => {
    const offered = data.filter(ofDefault);
    start.disabled = !offered.length;
    boxes.replaceChildren(...offered.map(({ id }) => element("label", {}, element("input", { type: "checkbox", value: id, checked: true }), ` ${id}`)));
    charts.replaceChildren();
    if (!offered.length) holder.append(element("p", { class: "quiet" }, "No classifier is served."));
    else if (!sound.isLong && sound.duration > 1.5) run();
  }).catch((error) => charts.replaceChildren(errorText(error, offer)));
  const ofDefault = ({ space_id }) => !sound.analysis || space_id === sound.analysis.space_id;
  offer();

  async function run() {
    start.disabled = true;
    progress.hidden = false;
    forgetCharts(charts);
    charts.replaceChildren();
    if (shown === sound) player?.forget();
    try {
      await label(heads());
    } catch (error) {
      charts.append(errorText(error, run));
    }
    progress.hidden = true;
    start.disabled = false;
  }

  // All of them in one pass over the recording.
  async function label(chosen) {
    if (!chosen.length) throw new Error("Choose a classifier.");
    const mine = new Map(chosen.map((head) => [head, new Track(head, (time) => player?.seek(time))]));
    tracks = mine;
    if (shown === sound) draw();
    const add = (windows) => {
      for (const [head, track] of mine) track.add(windows.map((window) => ofHead(window, head)));
    };
    const query = { ...asked().query, top_k: 5 };
    if (sound.isLong) stored = await labelLong(query, add, chosen);
    else {
      stored = await send("v1/audio/classifications", query, sound.file, () => {}, sound.name);
      add(stored.data[0].windows);
    }
    for (const [head, track] of mine) {
      const chart = element("div", { class: "chart" });
      charts.append(element("h3", {}, `Scores of ${head}`), chart,
        element("details", {}, element("summary", {}, "As a table"), element("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": `${head} as a table` }, track.table())));
      track.chart(chart);
    }
  }

  async function labelLong(query, add, chosen) {
    const windows = [];
    const all = [];
    const take = (members) => {
      all.push(members);
      if (members.object === "window") windows.push(members);
      else if (members.object === "classification") charts.append(element("div", { class: "cards" }, chosen.map((head) => bars(ofHead(members, head)))));
      if (windows.length > 50 || members.object === "done") {
        if (members.object === "done") sound.duration ??= members.usage.audio_seconds;
        const heard = Math.min(windows.at(-1)?.end_s ?? Infinity, sound.duration ?? Infinity);
        add(windows.splice(0));
        if (sound.duration) progress.value = heard / sound.duration;
        else progress.removeAttribute("value");
        if (shown === sound) (members.object === "done" ? say : sayHowFar)(`Heard ${seconds(heard)} of ${seconds(sound.duration)}.`);
      }
    };
    const sending = (share) => { progress.value = share; if (shown === sound) sayHowFar(`Sending ${short(sound.name)}: ${Math.round(100 * share)} % …`); };
    await sendLong("v1/audio/classifications", query, sound.file, sending, take, sound.name);
    return all;
  }

  holder.append(element("div", { class: "row" }, boxes, element("label", { for: "window" }, "window"), size, start),
    progress, charts, copyAs(asked, `${sound.name}.over-time`, () => stored));
  const draw = () => tracks.forEach((track) => player?.add(track));
  return { element: holder, draw };
}

// What one classifier says, of an answer that may have several.
function ofHead(found, head) {
  const said = found.classifications?.find((one) => one.head === head) ?? found;
  return { head, start_s: found.start_s, end_s: found.end_s, predictions: said.predictions, novelty: said.novelty };
}

export const samples = ["speech.opus", "clap.opus", "drone.opus", "saxophone.opus"];

export async function sample(name) {
  return new File([await get(`web/samples/${name}`)], name, { type: "audio/ogg" });
}
