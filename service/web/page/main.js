// The page: which view is shown, sounds that come in, keys of the keyboard.

import RecordPlugin from "../vendor/wavesurfer/record.esm.js";
import WaveSurfer from "../vendor/wavesurfer/wavesurfer.esm.js";
import { useKey } from "./api.js";
import { showCollections, takeDropped } from "./collections.js";
import { showComparison } from "./compare.js";
import { button, byId, colour, element, errorText, isFirst, say, whenIdle } from "./dom.js";
import { filesIn } from "./dropped.js";
import { knownLimits } from "./limits.js";
import { current, sample, samples, show } from "./listen.js";
import { showLive, stopLive } from "./live.js";
import { UNCHANGED, microphone } from "./microphone.js";
import { nonce } from "./player.js";
import { silence } from "./playing.js";
import { Sound, decode, wavFile } from "./sounds.js";

const VIEWS = ["listen", "compare", "live", "collections"];
const sounds = [];
let chosen = null;
let view = null;

function route() {
  const wanted = location.hash.slice(1);
  if (view && wanted && !VIEWS.includes(wanted)) return; // a place in the view
  if (wanted && !VIEWS.includes(wanted)) history.replaceState(null, "", "#listen"); // so that "back" comes to a view
  const was = view;
  view = VIEWS.includes(wanted) ? wanted : "listen";
  for (const name of VIEWS) byId(name).hidden = name !== view;
  for (const link of document.querySelectorAll("nav a")) {
    if (link.hash === `#${view}`) {
      link.setAttribute("aria-current", "page");
      document.title = `${link.textContent}: Viola`; // in the browser's history, and read out
    } else link.removeAttribute("aria-current");
  }
  say("");
  if (view !== "live") stopLive(); // what is not seen does not listen,
  if (view !== was) silence(); // nor is it heard
  if (view === "compare") showComparison(sounds);
  if (view === "live") showLive();
  if (view === "collections") showCollections(sounds);
}

async function take(files) {
  const taken = [...files].map((file) => new Sound(file));
  if (!taken.length) return;
  sounds.push(...taken);
  if (byId("compare").hidden) {
    location.hash = "#listen";
    choose(taken[0]);
  } else {
    list();
    await showComparison(sounds);
  }
}

function choose(sound) {
  chosen = sound;
  list();
  show(sound);
}

function list() {
  byId("sounds").replaceChildren(...(sounds.length > 1 ? sounds : []).map((sound) => element("li", {},
    button(sound.name, () => choose(sound), { "aria-pressed": String(sound === chosen) }))));
}

function wireDropping() {
  const hasFiles = (event) => event.dataTransfer.types.includes("Files"); // text goes where it is dropped
  addEventListener("dragover", (event) => {
    if (!hasFiles(event)) return;
    event.preventDefault();
    document.body.classList.add("over");
  });
  addEventListener("dragleave", (event) => event.relatedTarget || document.body.classList.remove("over"));
  whenIdle("drop", document.documentElement, async (event) => {
    if (!hasFiles(event)) return;
    event.preventDefault();
    document.body.classList.remove("over");
    const files = await filesIn(event.dataTransfer);
    if (!files.length) say("There is no file in what was dropped.");
    else if (view !== "collections" || !takeDropped(files)) await take(files);
  });
  byId("files").addEventListener("change", (event) => { take(event.target.files); event.target.value = ""; });
  byId("samples").append(...samples.map((name) => button(name.replace(".opus", ""), async () => take([await sample(name)]))));
}

// What is recorded is turned into a WAV: not every service reads what browsers record.
function wireRecording() {
  const holder = byId("recording");
  let recorder = null;
  let wave = null;
  let count = 0;
  whenIdle("click", byId("record"), async ({ detail }) => {
    if (recorder) return isFirst(detail) && recorder.stopRecording();
    const asked = await microphone(); // before the plugin does, which says no reason
    holder.hidden = false;
    wave = WaveSurfer.create({ container: holder, height: 60, cspNonce: nonce(), waveColor: colour("accent") });
    recorder = wave.registerPlugin(RecordPlugin.create({ scrollingWaveform: true, renderRecordedAudio: false }));
    recorder.on("record-end", async (blob) => {
      end();
      const samples = await decode(await blob.arrayBuffer());
      if (samples?.length) take([wavFile(samples, `recording-${++count}.wav`)]);
      else say("Nothing was recorded.");
    });
    try {
      await recorder.startRecording(UNCHANGED);
      byId("record").textContent = "Stop recording";
      say("Recording.");
    } catch (error) {
      end();
      throw error;
    } finally {
      asked.getTracks().forEach((track) => track.stop());
    }
  });
  function end() {
    recorder = null;
    wave?.destroy();
    wave = null;
    holder.hidden = true;
    byId("record").textContent = "Record from the microphone";
    say("");
  }
}

function wireKeys() {
  addEventListener("keydown", (event) => {
    const isTyping = event.target.closest?.("input, select, textarea, button, a, summary, canvas, [role=application]");
    if (isTyping || event.ctrlKey || event.metaKey || event.altKey || byId("listen").hidden || !current()) return;
    const act = { " ": () => current().toggle(), ArrowLeft: () => current().step(-1), ArrowRight: () => current().step(1),
      "+": () => current().zoom(2), "-": () => current().zoom(0.5) }[event.key];
    if (act) {
      event.preventDefault();
      act();
    }
  });
}

// The field for a key is shown where the service asks for one, or for another one.
async function wireKey() {
  const form = byId("key");
  const field = byId("key-field");
  addEventListener("keyneeded", () => { form.hidden = false; });
  whenIdle("submit", form, async () => {
    useKey(field.value);
    field.value = "";
    form.hidden = true;
    dispatchEvent(new Event("keygiven"));
    route();
    if (chosen?.error) show(chosen);
    await look();
  });
  await look();
}

// Whether the service is there, and knows the key.
async function look() {
  try {
    await knownLimits();
  } catch (error) {
    byId("status").replaceChildren(errorText(error, () => { say(""); return look(); }));
  }
}

function wireSkipping() {
  document.querySelector(".skip").addEventListener("click", (event) => {
    event.preventDefault();
    byId("main").focus();
  });
}

// What is cut off is whole under the pointer. Without one nobody gets a title: a screen reader would
// read out the same text twice.
function wireTitles() {
  addEventListener("mouseover", ({ target }) => {
    if (target.title || target.scrollWidth <= target.clientWidth) return;
    if (getComputedStyle(target).textOverflow === "ellipsis") target.title = target.textContent;
  });
}

wireSkipping();
wireTitles();
wireDropping();
wireRecording();
wireKeys();
addEventListener("hashchange", route);
route();
wireKey();
