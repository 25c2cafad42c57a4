// What numbers mean, in words.

import { element, percent } from "./dom.js";

export function novelty(head, { score, threshold, is_novel }) {
  const numbers = `(${score.toFixed(3)}, known up to ${threshold.toFixed(3)})`;
  return is_novel
    ? element("p", { class: "warning" }, `Unlike anything that ${head} learnt from: do not believe these labels ${numbers}.`)
    : element("p", { class: "good" }, `Like what ${head} learnt from ${numbers}.`);
}

// The rule for names of collections and classifiers, for a field that asks for one.
export const NAMED = {
  required: true, maxlength: "64", pattern: "([A-Za-z0-9._\\-]+:)?[A-Za-z0-9._\\-]+", title: "letters, digits and . _ - alone; GROUP:NAME is a group's",
};

// Labels in a field, and back: `bell, "dog, large"`; a quote between quotes is doubled.
export const listed = (labels) => labels.map((label) => (/[",]/.test(label) ? `"${label.replaceAll('"', '""')}"` : label)).join(", ");

export function labelsIn(text) {
  const found = [...text.matchAll(/\s*(?:"((?:[^"]|"")*)"|([^,]*))\s*(?:,|$)/g)];
  return found.map(([, quoted, plain]) => (quoted?.replaceAll('""', '"') ?? plain).trim()).filter(Boolean);
}

// The labels of one classifier as bars.
export function bars({ head, predictions, novelty: found }) {
  return element("div", { class: "panel" },
    element("h3", {}, head),
    element("ol", { class: "bars" }, predictions.map(({ label, score }) =>
      element("li", {},
        element("span", { class: "name" }, label),
        element("meter", { min: 0, max: 1, value: Math.max(0, Math.min(1, score)), "aria-hidden": "true" }),
        element("span", { class: "value" }, percent(score))))),
    novelty(head, found));
}

export function quality(report) {
  const said = [];
  said.push(`${report.codec} in ${report.container}, ${report.sample_rate / 1000} kHz, ` +
    (report.channels === 1 ? "mono" : `${report.channels} channels`) + ".");
  if (report.bandwidth_hz) said.push(`It has sound up to ${(report.bandwidth_hz / 1000).toFixed(1)} kHz.`);
  said.push(report.silent_share > 0.01 ? `${percent(report.silent_share)} of it is silent.` : "None of it is silent.");
  if (report.clipped_share > 0) said.push(`${percent(report.clipped_share)} of it is clipped.`);
  if (report.rms_dbfs !== undefined && report.rms_dbfs !== null) said.push(`Its level is ${report.rms_dbfs.toFixed(0)} dBFS.`);
  return element("div", { class: "panel" },
    element("h3", {}, "The recording"),
    element("p", {}, said.join(" ")),
    report.warnings.map((warning) => element("p", { class: "warning" }, warning)));
}

const hues = new Map();

// A colour for a label, the same wherever the label is, far from those before it; for both papers.
export function labelColour(label) {
  if (!hues.has(label)) hues.set(label, (260 + hues.size * 137.5) % 360);
  return `hsl(${hues.get(label)} 60% ${matchMedia("(prefers-color-scheme: dark)").matches ? 65 : 40}%)`;
}
