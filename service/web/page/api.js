// The service: requests with progress, answers in lines, live sockets; errors in its own words.

import { byId, say } from "./dom.js";

let key = kept((storage) => storage.getItem("viola.key")) ?? ""; // of this tab alone
const LONGEST_PAUSE_S = 30; // that is waited without asking anybody

export class Refusal extends Error {
  constructor(status, problem) {
    const text = problem?.detail ? `${problem.title}: ${problem.detail}` : `Answer ${status}`;
    const remedy = problem?.invalid_params ? "" : problem?.remedy || "";
    super([text, remedy].filter(Boolean).join(" "));
    this.status = status;
    this.problem = problem;
  }

  // Another key may do what this one may not.
  get needsKey() {
    return [401, 403].includes(this.status);
  }

  // The same may be answered later, or with another key; 0 is no answer at all.
  get mayPass() {
    return this.needsKey || [0, 429].includes(this.status) || this.status >= 500;
  }

  get isTooLong() {
    return (this.problem?.type ?? "").endsWith("too-long");
  }
}

const brokenOff = () => new Refusal(0, { title: "No answer", detail: "it broke off before its end." });
const unreachable = () => new Refusal(0, { title: "No answer", detail: "the service cannot be reached." });

export const hasKey = () => key !== "";

export function useKey(text) {
  const given = text.trim();
  if (/[^!-~]/.test(given)) throw new Error("This is no API key: a key has letters, digits and `_-` alone. Paste it again.");
  key = given;
  kept((storage) => (key ? storage.setItem("viola.key", key) : storage.removeItem("viola.key")));
}

// A browser may let a page keep nothing, and throws where it tries: the key then lasts until a reload.
function kept(work) {
  try {
    return work(sessionStorage);
  } catch {
    return null;
  }
}

// Where the service is; behind a proxy that adds a prefix, with it.
export function address(path, query = {}) {
  const url = new URL(path, document.baseURI.split("#")[0]);
  for (const [name, value] of Object.entries(query)) {
    if (value !== undefined && value !== null && value !== "") url.searchParams.set(name, value);
  }
  return url;
}

const authorization = () => (key ? { Authorization: `Bearer ${key}` } : {});

export async function get(path, query) {
  return ask("GET", path, { query });
}

// JSON in, JSON out; a refusal that may pass is tried again when the service says.
export async function ask(method, path, { query, json, body, headers = {}, signal } = {}) {
  const sent = json === undefined ? body : JSON.stringify(json);
  const type = json === undefined ? {} : { "Content-Type": "application/json" };
  for (let attempt = 0; ; attempt++) {
    const answer = await fetch(address(path, query), {
      method, body: sent, signal, headers: { ...authorization(), ...type, ...headers },
    }).catch((error) => {
      if (error.name === "AbortError") throw error;
      throw unreachable();
    });
    if (answer.ok) return answer.status === 204 ? null : read(answer);
    const pause = retryIn(answer.status, answer.headers.get("Retry-After"), attempt);
    const problem = await answer.json().catch(() => null);
    if (pause === null) throw new Refusal(answer.status, problem);
    await waited(pause, problem);
  }
}

function read(answer) {
  const type = answer.headers.get("Content-Type") || "";
  checkType(type);
  const content = type.includes("json") && !type.includes("ndjson") ? answer.json() : answer.blob();
  return content.catch(() => { throw brokenOff(); });
}

// A proxy before the service may ask to sign in again.
function checkType(type) {
  if (type?.includes("html")) throw new Refusal(0, { title: "No answer", detail: "a web page came, and none of the service: sign in again, by loading this page anew." });
}

function retryIn(status, after, attempt) {
  if (![429, 503].includes(status) || attempt >= 6) return null;
  const wanted = Number(after ?? 1);
  return wanted >= 0 && wanted <= LONGEST_PAUSE_S ? 1000 * (wanted + Math.random()) : null;
}

function waited(pause, problem) {
  const text = `${problem?.title ?? "The service is busy"}: trying again in ${Math.ceil(pause / 1000)} s …`;
  say(text);
  return new Promise((resolve) => setTimeout(resolve, pause)).then(() => byId("status").textContent === text && say(""));
}

// Send a sound, telling how far the upload is from 0 to 1; -> the answer as JSON.
export async function send(path, query, blob, onProgress = () => {}, name = "sound") {
  const form = new FormData();
  form.append("file", blob, name);
  const request = await tried(address(path, query), form, onProgress, null, blob, name);
  return JSON.parse(request.responseText);
}

// A form with a file, sent until it is answered or refused for good.
async function tried(url, form, onProgress, onText, blob, name) {
  for (let attempt = 0; ; attempt++) {
    const request = await uploaded("POST", url, form, onProgress, onText)
      .catch((error) => readable(blob, name).then(() => { throw error; }));
    if (request.status >= 200 && request.status < 300) {
      checkType(request.getResponseHeader("Content-Type"));
      return request;
    }
    const pause = retryIn(request.status, request.getResponseHeader("Retry-After"), attempt);
    const problem = document_(request.responseText);
    if (pause === null) throw new Refusal(request.status, problem);
    await waited(pause, problem);
  }
}

// A file is read when it is sent: it may be gone by then, or have been a folder all along.
export async function readable(blob, name) {
  await blob.slice(0, 1).arrayBuffer().catch(() => {
    throw new Error(`${name} cannot be read: it is a folder, or has been changed, moved or deleted since it was chosen. Choose it again.`);
  });
}

function document_(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

function uploaded(method, url, body, onProgress, onText) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open(method, url);
    for (const [name, value] of Object.entries(authorization())) request.setRequestHeader(name, value);
    request.upload.onprogress = (event) => onProgress(event.total ? event.loaded / event.total : 0);
    if (onText) request.onprogress = () => onText(request);
    request.onload = () => resolve(request);
    request.onerror = () => reject(unreachable());
    request.send(body);
  });
}

// What the service hears of a file, as a WAV.
export function decoded(blob, name) {
  const form = new FormData();
  form.append("file", blob, name);
  return ask("POST", "v1/audio/samples", { body: form });
}

// A long recording: `onLine` gets each document as it comes; -> when the last has come.
export async function sendLong(path, query, blob, onProgress, onLine, name = "sound") {
  const form = new FormData();
  form.append("file", blob, name);
  let read = 0;
  let failed = null;
  let isDone = false;
  const take = (request) => {
    if (request.status !== 200) return;
    const end = request.responseText.lastIndexOf("\n") + 1;
    const lines = request.responseText.slice(read, end).split("\n").filter(Boolean);
    read = Math.max(read, end);
    for (const line of lines) {
      const members = JSON.parse(line);
      isDone ||= members.object === "done";
      if (members.object === "error") failed = new Refusal(members.error.status, members.error);
      else onLine(members);
    }
  };
  const request = await tried(address(path, { ...query, stream: true }), form, onProgress, take, blob, name);
  take(request);
  if (failed) throw failed;
  if (!isDone) throw brokenOff();
}

// A live stream; the key goes as a subprotocol, since a page can set no header here.
export function openStream() {
  const url = address("v1/audio/stream");
  url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
  const coded = btoa(key).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
  return new WebSocket(url, key ? ["viola.stream", `viola.key.${coded}`] : ["viola.stream"]);
}

export function vector(base64) {
  const bytes = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
  return new Float32Array(bytes.buffer);
}
