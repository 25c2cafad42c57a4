// The microphone, labelled while it is heard, over the service's WebSocket.

import { Refusal, address, get, hasKey, openStream } from "./api.js";
import { copyAs } from "./code.js";
import { button, byId, element, errorText, isFirst, percent, say } from "./dom.js";
import { microphone } from "./microphone.js";
import { scoreChart } from "./track.js";

const KEPT_S = 60;
const SHOWN = 4;
const MOST_RATE = 48_000; // Hz, of a stream
const GONE = "The microphone is gone: it was disconnected, or this page is not allowed to hear it any more. Connect or allow it, then press Listen.";
const MOST_WAIT_MS = 5000; // for the first sound of a microphone
let running = null;
let stop = () => {};
let offer = null; // what can be listened with, once the view was shown

export const stopLive = () => running && stop();

export async function showLive() {
  const holder = byId("stream");
  if (offer) { // what could not be had may be had by now
    if (!byId("live-head").options.length) await offer();
    return;
  }
  const heads = element("select", { id: "live-head" });
  const now = element("p", { class: "now", role: "status", "aria-live": "polite" });
  const level = element("meter", { min: 0, max: 1, value: 0, "aria-label": "Level" });
  const chart = element("div", { class: "chart" });
  const log = element("ol", { class: "bars" });
  const trouble = element("div");
  const heard = [];
  const toggle = button("Listen", async ({ detail }) => {
    if (running) return isFirst(detail) && stop();
    trouble.replaceChildren();
    heard.length = 0;
    for (const holder of [now, chart, log]) holder.replaceChildren();
    toggle.textContent = "Stop";
    try {
      running = await listen(heads.value, { level, now, chart, log, heard }, ended);
      if (!running) stop();
    } catch (error) {
      ended(error);
    }
  }, { class: "main" });
  function ended(error) {
    stop();
    if (error) trouble.replaceChildren(errorText(error));
  }
  stop = () => {
    running?.close();
    running = null;
    level.value = 0;
    toggle.textContent = "Listen";
    say("");
  };
  const python = () => `import soundfile as sf  # or a microphone, as sounddevice.InputStream\n\nblocks = sf.blocks("speech.opus", blocksize=4800, dtype="float32")\nfor window in client.listen(blocks, sample_rate=48000, head=${JSON.stringify(heads.value)}, window_s=1.0, hop_s=0.5):\n    print(window.start_s, window.labels[0].best)`;
  holder.append(element("div", { class: "panel" },
    element("div", { class: "row" }, toggle, element("label", { for: "live-head" }, "with"), heads, level),
    trouble, now, chart, log,
    copyAs(() => ({ path: "v1/audio/classifications", query: { head: heads.value, granularity: "window", window_s: 1, stream: true }, file: "speech.opus", python: python(), script: script(heads.value) }), "heard", () => heard)));
  offer = async () => {
    trouble.replaceChildren();
    try {
      const { data } = await get("v1/classifiers");
      heads.replaceChildren(...data.map(({ id }) => element("option", {}, id)));
      toggle.disabled = data.length === 0;
      if (!data.length) trouble.append(element("p", { class: "quiet" }, "No classifier is served."));
    } catch (error) {
      toggle.disabled = true;
      trouble.replaceChildren(errorText(error, offer));
    }
  };
  addEventListener("keygiven", offer);
  await offer();
}

async function listen(head, shown, ended) {
  const heard = await microphone();
  heard.getTracks().forEach((track) => { track.onended = () => ended(new Error(GONE)); });
  const release = () => heard.getTracks().forEach((track) => track.stop());
  if (byId("live").hidden) { // left while the browser asked
    release();
    return null;
  }
  const context = new AudioContext(); // of its own rate: Firefox connects no microphone to another
  const socket = openStream();
  let waiting = null;
  const close = () => {
    clearTimeout(waiting);
    release();
    if (context.state !== "closed") context.close();
    if (socket.readyState === WebSocket.OPEN) socket.send(JSON.stringify({ end: true }));
    else socket.close();
    socket.onopen = socket.onclose = socket.onmessage = null;
  };
  const begin = async () => {
    const every = Math.ceil(context.sampleRate / MOST_RATE); // of its samples one is sent
    socket.send(JSON.stringify({ sample_rate: Math.round(context.sampleRate / every), encoding: "f32le", window_s: 1, hop_s: 0.5, head, top_k: 5 }));
    await context.audioWorklet.addModule(address("web/page/capture.js"));
    const capture = new AudioWorkletNode(context, "capture", { numberOfOutputs: 0, processorOptions: { every } });
    waiting = setTimeout(() => ended(new Error("The browser hands on nothing of what the microphone hears: has this machine no sound output, or does another program hold it? Try again.")), MOST_WAIT_MS);
    capture.port.onmessage = ({ data }) => {
      clearTimeout(waiting);
      shown.level.value = Math.min(1, 3 * Math.max(...data.map(Math.abs)));
      if (socket.readyState === WebSocket.OPEN) socket.send(data);
    };
    context.createMediaStreamSource(heard).connect(capture);
    context.resume().catch(() => {}); // Safari may hold it back
    say("Listening.");
  };
  socket.onopen = () => begin().catch(ended);
  socket.onmessage = ({ data }) => {
    const members = JSON.parse(data);
    if (members.object === "error") return ended(new Refusal(members.error.status, members.error));
    if (members.object === "window") tell(members, shown);
  };
  socket.onclose = async ({ code }) => ended(code === 1000 ? null : await whyBroken());
  return { close };
}

// A browser tells a page nothing of a handshake that was refused: a request may say more.
async function whyBroken() {
  try {
    await get("v1/limits");
    return new Error("The stream was not accepted, or broke off: are all places for live streams taken, or may this key not embed and classify? Try again.");
  } catch (error) {
    return error;
  }
}

function tell(window, { now, chart, log, heard }) {
  const { embedding, ...kept } = window;
  heard.push(kept);
  const [best] = window.predictions;
  const isKnown = best && !window.novelty.is_novel;
  const text = isKnown ? best.label : "nothing that it knows";
  if (now.textContent !== text) now.textContent = text;
  const top = window.predictions.slice(0, SHOWN);
  log.replaceChildren(...top.map(({ label, score }) => element("li", {},
    element("span", { class: "name" }, label), element("meter", { min: 0, max: 1, value: score, "aria-hidden": "true" }),
    element("span", { class: "value" }, percent(score)))));
  const recent = heard.filter(({ end_s }) => end_s > window.end_s - KEPT_S);
  const labels = top.map(({ label }) => label);
  const score = (one, label) => one.predictions.find((p) => p.label === label)?.score ?? 0;
  chart.replaceChildren();
  scoreChart(chart, labels, [recent.map(({ end_s }) => end_s), ...labels.map((label) => recent.map((one) => score(one, label)))]);
}

// For Node 22 or newer; without a key also for a browser's console.
function script(head) {
  const url = address("v1/audio/stream");
  url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
  const key = hasKey() ? ', "viola.key." + Buffer.from(process.env.VIOLA_KEY).toString("base64url")' : "";
  return `const socket = new WebSocket(${JSON.stringify(String(url))}, ["viola.stream"${key}]);
socket.onmessage = ({ data }) => {
  const { object, start_s, predictions, error } = JSON.parse(data);
  console.log(object, start_s ?? "", predictions?.[0]?.label ?? error?.detail ?? "");
};
socket.onopen = () => {
  socket.send(JSON.stringify({ sample_rate: 16000, encoding: "f32le", window_s: 1, hop_s: 0.5, head: ${JSON.stringify(head)} }));
  for (let n = 0; n < 20; n++) socket.send(new Float32Array(1600)); // 2 s of silence: your samples
  socket.send(JSON.stringify({ end: true }));
};
`;
}
