// The page: which view is shown, sounds that come in, keys of the keyboard.

import RecordPlugin from "../vendor/wavesurfer/record.esm.js";
import WaveSurfer from "../vendor/wavesurfer/wavesurfer.esm.js";
import { useKey } from "./api.js";
import { showCollections } from "./collections.js";
import { showComparison } from "./compare.js";
import { button, byId, colour, element, errorText, say } from "./dom.js";
import { current, knownLimits, sample, samples, show } from "./listen.js";
import { showLive } from "./live.js";
import { nonce } from "./player.js";
import { Sound, decode, wavFile } from "./sounds.js";

const VIEWS = ["listen", "compare", "live", "collections"];
const sounds = [];
let chosen = null;

function route() {
  const wanted = location.hash.slice(1).split("/")[0];
  const view = VIEWS.includes(wanted) ? wanted : "listen";
  for (const name of VIEWS) byId(name).hidden = name !== view;
  for (const link of document.querySelectorAll("nav a")) {
    if (link.hash === `#${view}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  say("");
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
    button(sound.name, () => choose(sound), { "aria-pressed": String(sound === chosen), title: sound.name }))));
}

function wireDropping() {
  addEventListener("dragover", (event) => { event.preventDefault(); document.body.classList.add("over"); });
  addEventListener("dragleave", (event) => event.relatedTarget || document.body.classList.remove("over"));
  addEventListener("drop", (event) => {
    event.preventDefault();
    document.body.classList.remove("over");
    take(event.dataTransfer.files);
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
  byId("record").addEventListener("click", async () => {
    if (recorder) return recorder.stopRecording();
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
      await recorder.startRecording();
      byId("record").textContent = "Stop recording";
      say("Recording.");
    } catch (error) {
      end();
      say(`The microphone cannot be used: ${error.message}`);
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

// Keys are on where the service asks for one; the field is shown only then.
async function wireKey() {
  const form = byId("key");
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    useKey(byId("key-field").value);
    location.reload();
  });
  try {
    await knownLimits();
  } catch (error) {
    if (error.status === 401) form.hidden = false;
    byId("status").replaceChildren(errorText(error));
  }
}

wireDropping();
wireRecording();
wireKeys();
addEventListener("hashchange", route);
route();
wireKey();
