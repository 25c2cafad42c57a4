// "Copy as": the request that made what is shown, as curl, Python and JavaScript.

import { address, hasKey } from "./api.js";
import { button, download, element, say } from "./dom.js";

const shell = (text) => `'${String(text).replaceAll("'", "'\\''")}'`;

// A file's name as curl takes it in a form, where `;` and `,` would end it.
const inForm = (name) => (/[;,"\\]/.test(name) ? `"${name.replace(/["\\]/g, "\\$&")}"` : name);
const given = (query) => Object.entries(query).filter(([, value]) => value !== undefined && value !== "");

// asked: {path, query, file, json, method, python, script}: one file, or several, each of which is sent
// by itself; what is written in Python, and in JavaScript where that is more than a request.
export function curl({ path, query = {}, file, json, method }) {
  if (Array.isArray(file)) {
    const one = curl({ path, query, file: "", method }).replace("-F 'file=@'", '-F "file=@$file"');
    return `for file in ${file.map((name) => shell(inForm(name))).join(" ")}; do\n    ${one}\ndone`;
  }
  const parts = ["curl"];
  if (method && method !== (file !== undefined || json ? "POST" : "GET")) parts.push(`-X ${method}`);
  if (hasKey()) parts.push('-H "Authorization: Bearer $VIOLA_KEY"');
  if (file !== undefined) parts.push(`-F ${shell(`file=@${inForm(file)}`)}`);
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
  const options = [`method: ${JSON.stringify(method ?? (file !== undefined || json ? "POST" : "GET"))}`];
  const headers = [];
  if (hasKey()) headers.push("Authorization: `Bearer ${process.env.VIOLA_KEY}`");
  if (json) headers.push('"Content-Type": "application/json"');
  if (file !== undefined) options.push("body: form");
  if (json) options.push(`body: JSON.stringify(${JSON.stringify(json)})`);
  if (headers.length) options.push(`headers: { ${headers.join(", ")} }`);
  const fetched = [`const answer = await fetch(${url}, { ${options.join(", ")} });`, ...(query.stream ? LINES : ["console.log(await answer.json());"])];
  if (file === undefined) return [...fetched, ""].join("\n");
  const one = ["const form = new FormData();", "form.append(\"file\", new Blob([await readFile(file)]), file);", ...fetched];
  const all = Array.isArray(file)
    ? [`for (const file of ${JSON.stringify(file)}) {`, ...one.map((line) => `  ${line}`), "}"]
    : [`const file = ${JSON.stringify(file)};`, ...one];
  return ['import { readFile } from "node:fs/promises";', "", ...all, ""].join("\n");
}

// How an answer in lines is read while it comes.
const LINES = [
  'let rest = "";',
  "for await (const text of answer.body.pipeThrough(new TextDecoderStream())) {",
  '  const lines = (rest + text).split("\\n");',
  "  rest = lines.pop();",
  "  for (const line of lines) console.log(JSON.parse(line));",
  "}",
  "if (rest) console.log(rest);",
];

// Buttons that copy, and one that downloads what was answered.
export function copyAs(asked, name, answer) {
  const shown = element("pre", { hidden: true, tabindex: 0, "aria-label": "Copied code" });
  const copy = (kind, make) =>
    button(kind, async () => {
      const text = make(asked());
      shown.textContent = text;
      shown.hidden = false;
      const isCopied = await copied(text);
      if (!isCopied) getSelection().selectAllChildren(shown);
      say(isCopied ? `Copied as ${kind}.` : `Here it is in ${kind}, chosen: this browser lets the page copy nothing, press Ctrl+C.`);
    });
  return element("div", { class: "code", role: "group", "aria-label": "Copy as code" },
    element("span", { class: "quiet" }, "Copy as"),
    copy("curl", curl), copy("Python", python), copy("JavaScript", javascript),
    answer ? button("Download JSON", () => download(`${name}.json`, answer())) : null, shown);
}

// A page that does not come by https:// or from localhost has no clipboard.
async function copied(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return false;
  }
}

// Arguments of a Python call: {top_k: 3} -> ", top_k=3"
export const keywords = (query) =>
  given(query).map(([name, value]) => `, ${name}=${typeof value === "number" ? value : JSON.stringify(value)}`).join("");
