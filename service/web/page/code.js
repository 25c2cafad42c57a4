// "Copy as": the request that made what is shown, as curl, Python and JavaScript.

import { address, hasKey } from "./api.js";
import { button, download, element, say } from "./dom.js";

const shell = (text) => `'${String(text).replaceAll("'", "'\\''")}'`;
const given = (query) => Object.entries(query).filter(([, value]) => value !== undefined && value !== "");

// asked: {path, query, file, json, method, call}; `call` is the client's method in Python.
export function curl({ path, query = {}, file, json, method }) {
  const parts = ["curl"];
  if (method && method !== (file || json ? "POST" : "GET")) parts.push(`-X ${method}`);
  if (hasKey()) parts.push('-H "Authorization: Bearer $VIOLA_KEY"');
  if (file) parts.push(`-F ${shell(`file=@${file}`)}`);
  if (json) parts.push("-H 'Content-Type: application/json'", `-d ${shell(JSON.stringify(json))}`);
  return [...parts, shell(address(path, Object.fromEntries(given(query))))].join(" ");
}

export function python(asked) {
  const key = hasKey() ? ', key=os.environ["VIOLA_KEY"]' : "";
  const at = String(address("")).replace(/\/$/, "");
  const head = [...(key ? ["import os"] : []), "import viola", ""];
  const open = `with viola.Client(${JSON.stringify(at)}${key}) as client:`;
  return [...head, open, ...asked.python.split("\n").map((line) => `    ${line}`), ""].join("\n");
}

export function javascript({ path, query = {}, file, json, method, script }) {
  if (script) return script;
  const url = JSON.stringify(String(address(path, Object.fromEntries(given(query)))));
  const lines = [];
  const options = [`method: ${JSON.stringify(method ?? (file || json ? "POST" : "GET"))}`];
  const headers = [];
  if (hasKey()) headers.push("Authorization: `Bearer ${process.env.VIOLA_KEY}`");
  if (json) headers.push('"Content-Type": "application/json"');
  if (file) {
    lines.push('import { readFile } from "node:fs/promises";', "", "const form = new FormData();",
      `form.append("file", new Blob([await readFile(${JSON.stringify(file)})]), ${JSON.stringify(file)});`);
    options.push("body: form");
  }
  if (json) options.push(`body: JSON.stringify(${JSON.stringify(json)})`);
  if (headers.length) options.push(`headers: { ${headers.join(", ")} }`);
  lines.push(`const answer = await fetch(${url}, { ${options.join(", ")} });`, "console.log(await answer.json());");
  return lines.join("\n") + "\n";
}

// Buttons that copy, and one that downloads what was answered.
export function copyAs(asked, name, answer) {
  const shown = element("pre", { hidden: true, tabindex: 0, "aria-label": "Copied code" });
  const copy = (kind, make) =>
    button(kind, async () => {
      const text = make(asked());
      shown.textContent = text;
      shown.hidden = false;
      await navigator.clipboard?.writeText(text).catch(() => {});
      say(`Copied as ${kind}.`);
    });
  return element("div", { class: "code", role: "group", "aria-label": "Copy as code" },
    element("span", { class: "quiet" }, "Copy as"),
    copy("curl", curl), copy("Python", python), copy("JavaScript", javascript),
    answer ? button("Download JSON", () => download(`${name}.json`, answer())) : null, shown);
}

// Arguments of a Python call: {top_k: 3} -> ", top_k=3"
export const keywords = (query) =>
  given(query).map(([name, value]) => `, ${name}=${typeof value === "number" ? value : JSON.stringify(value)}`).join("");
