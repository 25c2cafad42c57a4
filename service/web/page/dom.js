// Elements, and what is said to whoever listens.

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

export const button = (text, onclick, attributes = {}) =>
  element("button", { type: "button", onclick, ...attributes }, text);

export const byId = (id) => document.getElementById(id);

export function say(text) {
  byId("status").textContent = text;
}

export function errorText(error) {
  return element("p", { class: "error", role: "alert" }, error.message);
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
