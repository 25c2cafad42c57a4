// The service: requests with progress, answers in lines, live sockets; errors in its own words.

let key = sessionStorage.getItem("viola.key") || ""; // of this tab alone

export class Refusal extends Error {
  constructor(status, problem) {
    const text = problem?.detail ? `${problem.title}: ${problem.detail}` : `Answer ${status}`;
    const remedy = problem?.invalid_params ? "" : problem?.remedy || "";
    super([text, remedy].filter(Boolean).join(" "));
    this.status = status;
    this.problem = problem;
  }
}

export const hasKey = () => key !== "";

export function useKey(text) {
  key = text.trim();
  if (key) sessionStorage.setItem("viola.key", key);
  else sessionStorage.removeItem("viola.key");
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
      throw new Refusal(0, { title: "No answer", detail: "the service cannot be reached." });
    });
    if (answer.ok) return answer.status === 204 ? null : read(answer);
    const pause = retryIn(answer.status, answer.headers.get("Retry-After"), attempt);
    const problem = await answer.json().catch(() => null);
    if (pause === null) throw new Refusal(answer.status, problem);
    await new Promise((resolve) => setTimeout(resolve, pause));
  }
}

async function read(answer) {
  const type = answer.headers.get("Content-Type") || "";
  return type.includes("json") && !type.includes("ndjson") ? answer.json() : answer.blob();
}

function retryIn(status, after, attempt) {
  if (![429, 503].includes(status) || attempt >= 6) return null;
  const waited = Number(after ?? 1);
  return waited > 30 ? null : 1000 * (waited + Math.random());
}

// Send a sound, telling how far the upload is from 0 to 1; -> the answer as JSON.
export async function send(path, query, blob, onProgress = () => {}, name = "sound") {
  const form = new FormData();
  form.append("file", blob, name);
  for (let attempt = 0; ; attempt++) {
    const request = await uploaded("POST", address(path, query), form, onProgress);
    if (request.status >= 200 && request.status < 300) return JSON.parse(request.responseText);
    const pause = retryIn(request.status, request.getResponseHeader("Retry-After"), attempt);
    if (pause === null) throw new Refusal(request.status, document_(request.responseText));
    await new Promise((resolve) => setTimeout(resolve, pause));
  }
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
    request.onerror = () =>
      reject(new Refusal(0, { title: "No answer", detail: "the service cannot be reached." }));
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
  const take = (request) => {
    if (request.status !== 200) return;
    const end = request.responseText.lastIndexOf("\n") + 1;
    const lines = request.responseText.slice(read, end).split("\n").filter(Boolean);
    read = Math.max(read, end);
    for (const line of lines) {
      const members = JSON.parse(line);
      if (members.object === "error") failed = new Refusal(members.error.status, members.error);
      else onLine(members);
    }
  };
  let failed = null;
  const url = address(path, { ...query, stream: true });
  const request = await uploaded("POST", url, form, onProgress, take);
  if (request.status !== 200) throw new Refusal(request.status, document_(request.responseText));
  take(request);
  if (failed) throw failed;
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
