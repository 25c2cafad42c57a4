// Elements, and what is said to whoever listens.

const MOST_LETTERS = 50; // of a name that is said
const ENDING = 15; // of them

// element("button", {type: "button", onclick: f}, "Play", other)
export function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (key in made && key !== "list" && typeof value !== "string") made[key] = value;
    else if (value !== undefined && value !== null && value !== false) made.setAttribute(key, value);
  }
  made.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return made;
}

export const button = (text, work, attributes = {}) =>
  whenIdle("click", element("button", { type: "button", ...attributes }, text), work);

// What an element does when something happens. While it is at work a press begins nothing again, so that
// a double click is a click; what brings files, or a choice, is never left out. An error that `work` lets
// through is said.
export function whenIdle(kind, holder, work) {
  holder.addEventListener(kind, async (event) => {
    if (kind === "submit") event.preventDefault();
    const isPress = ["click", "submit"].includes(kind);
    if (isPress && holder.ariaBusy === "true") return;
    if (isPress) holder.ariaBusy = "true";
    const refocus = focusKept();
    try {
      await work(event);
    } catch (error) {
      askForKey(error);
      say(error.message);
    } finally {
      holder.removeAttribute("aria-busy");
      refocus();
    }
  });
  return holder;
}

// What has the focus may be replaced, hidden or switched off by what it begins; a keyboard and a screen
// reader would then start again at the top of the page. -> to be called afterwards: the focus is where
// it was, on what took that place, or on the first control of what is left around it.
function focusKept() {
  const had = document.activeElement;
  const around = [];
  for (let one = had; one && one !== document.body; one = one.parentElement) around.push(one);
  const isShown = (one) => one.checkVisibility();
  const controls = (place) => [...place.querySelectorAll("a, button, input, select, [tabindex='0']")].filter((one) => isShown(one) && !one.disabled);
  const isAlike = (one) => one.tagName === had.tagName && one.id === had.id && one.textContent === had.textContent;
  return () => {
    if (!around.length || document.activeElement !== document.body) return;
    const left = around.filter(isShown);
    const near = left.map(controls).find((some) => some.length);
    (left[0] === had ? had : near?.find(isAlike) ?? near?.[0])?.focus();
  };
}

// Whether a click, by its `detail`, is no second one of a double click: that must not take back what
// the first began, however fast it began.
export const isFirst = (detail) => detail < 2;

// Files are chosen in a field; the same ones may be chosen again.
export function fileField(id, take, attributes = {}) {
  const field = element("input", { type: "file", class: "unseen", id, ...attributes });
  return whenIdle("change", field, () => {
    const files = [...field.files];
    field.value = "";
    return files.length ? take(files) : undefined;
  });
}

export const byId = (id) => document.getElementById(id);

export function say(text) {
  byId("status").textContent = text;
}

// A name in a sentence, with its beginning and its end: what is said stays short.
export const short = (name) => (name.length <= MOST_LETTERS ? name : `${name.slice(0, MOST_LETTERS - ENDING)}…${name.slice(1 - ENDING)}`);

// How far something is: too often for a screen reader to read it out, which has the progress bar.
export function sayHowFar(text) {
  byId("status").replaceChildren(element("span", { "aria-hidden": "true" }, text));
}

// Where another key may do what this one may not, the page shows its field for one.
function askForKey(error) {
  if (error.needsKey) dispatchEvent(new Event("keyneeded"));
}

// What went wrong; `again` tries once more, where that may help.
export function errorText(error, again) {
  askForKey(error);
  return element("p", { class: "error", role: "alert" }, error.message,
    again && (error.mayPass ?? true) ? [" ", button("Try again", again)] : null);
}

export function seconds(value) {
  if (value === null || value === undefined) return "?";
  if (value < 60) return `${value.toFixed(2)} s`;
  const whole = Math.round(value);
  const parts = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  const shown = parts[0] ? parts : parts.slice(1);
  return shown.map((part, at) => (at ? String(part).padStart(2, "0") : part)).join(":");
}

// As short as an axis has room for: "5", "1:30".
export const axisTime = (value) => (value < 60 ? String(Math.round(10 * value) / 10) : seconds(value));

// "0.00" for what rounds to "-0.00".
export const fixed = (value, digits = 2) => value.toFixed(digits).replace(/^-(0[.]?0*)$/, "$1");

export const percent = (share) => `${(100 * share).toFixed(share < 0.1 ? 1 : 0)} %`;

export function download(name, content) {
  const text = typeof content === "string" ? content : JSON.stringify(content, null, 1);
  const type = name.endsWith(".json") ? "application/json" : "text/plain";
  save(name, new Blob([text], { type }));
}

export function save(name, blob) {
  const link = element("a", { href: URL.createObjectURL(blob), download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

// A colour of the style sheet as a canvas takes it, in the light or the dark of now.
export function colour(name) {
  const probe = element("span", {});
  probe.style.color = `var(--${name})`;
  document.body.append(probe);
  const found = getComputedStyle(probe).color;
  probe.remove();
  return found;
}

// A canvas as wide as it is shown, sharp on any screen; the context measures in CSS pixels.
export function sized(canvas) {
  const scale = window.devicePixelRatio || 1;
  const { width, height } = canvas.getBoundingClientRect();
  const wanted = [Math.max(1, Math.round(width * scale)), Math.max(1, Math.round(height * scale))];
  if (canvas.width !== wanted[0] || canvas.height !== wanted[1]) [canvas.width, canvas.height] = wanted;
  const context = canvas.getContext("2d");
  context.setTransform(scale, 0, 0, scale, 0, 0);
  return { context, width, height };
}
