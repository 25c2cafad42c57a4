// The labels of one classifier over time: a row under the waveform, and a chart of its scores.

import { axisTime, colour, element, sized } from "./dom.js";
import { labelColour } from "./words.js";

const SHOWN = 4; // labels in the chart
const MOST_ROWS = 500; // of the table
const [LEAST_WIDTH, HEIGHT] = [200, 180]; // of the chart
const STEPS_S = [0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200];

export class Track {
  constructor(head, onSeek) {
    this.head = head;
    this.windows = [];
    this.view = [0, 0];
    this.canvas = element("canvas", { class: "track", role: "img", "aria-label": `${head} over time` });
    this.canvas.addEventListener("click", (event) => {
      const { left, width } = this.canvas.getBoundingClientRect();
      onSeek(this.view[0] + ((event.clientX - left) / width) * (this.view[1] - this.view[0]));
    });
  }

  add(windows) {
    this.windows.push(...windows);
    this.draw();
  }

  show(start, end) {
    this.view = [start, end];
    this.draw();
  }

  draw() {
    const [start, end] = this.view;
    if (end <= start) return;
    const { context, width, height } = sized(this.canvas);
    context.clearRect(0, 0, width, height);
    const x = (time) => ((time - start) / (end - start)) * width;
    context.font = "13px system-ui, sans-serif";
    context.textBaseline = "middle";
    const ink = colour("ink");
    let named = -Infinity;
    for (const [at, window] of this.windows.entries()) {
      const until = Math.min(window.end_s, this.windows[at + 1]?.start_s ?? window.end_s);
      if (until < start || window.start_s > end) continue;
      const best = window.predictions[0];
      if (!best) continue;
      context.globalAlpha = window.novelty.is_novel ? 0.15 : 0.25 + 0.75 * Math.max(0, Math.min(1, best.score));
      context.fillStyle = labelColour(best.label);
      const left = x(window.start_s);
      context.fillRect(left, height - 8, Math.max(1, x(until) - left - 1), 8);
      context.globalAlpha = 1;
      const isNew = this.windows[at - 1]?.predictions[0]?.label !== best.label;
      if (left >= named && (isNew || left > named + 200)) {
        const text = window.novelty.is_novel ? `${best.label}?` : best.label;
        context.fillStyle = ink;
        context.fillText(text, Math.max(2, left), (height - 8) / 2);
        named = Math.max(2, left) + context.measureText(text).width + 12;
      }
    }
  }

  // What the row shows, for those who do not see it.
  table() {
    const left = this.windows.length > MOST_ROWS ? `: the first ${MOST_ROWS} of ${this.windows.length} windows, all are in the JSON` : "";
    const rows = this.windows.slice(0, MOST_ROWS).map((window) => {
      const best = window.predictions[0];
      return element("tr", {}, element("td", {}, `${window.start_s.toFixed(2)} s`),
        element("td", {}, best?.label ?? "nothing"), element("td", {}, best ? best.score.toFixed(2) : ""),
        element("td", {}, window.novelty.is_novel ? "unlike what it knows" : ""));
    });
    return element("table", {},
      element("caption", {}, `${this.head} over time${left}`),
      element("thead", {}, element("tr", {}, ["from", "label", "score", ""].map((t) => element("th", { scope: "col" }, t)))),
      element("tbody", {}, rows));
  }

  chart(holder) {
    const totals = new Map();
    for (const { predictions } of this.windows) {
      for (const { label, score } of predictions) totals.set(label, (totals.get(label) ?? 0) + score);
    }
    const labels = [...totals].sort((a, b) => b[1] - a[1]).slice(0, SHOWN).map(([label]) => label);
    const score = (window, label) => window.predictions.find((p) => p.label === label)?.score ?? 0;
    const data = [this.windows.map((w) => (w.start_s + w.end_s) / 2),
      ...labels.map((label) => this.windows.map((w) => score(w, label)))];
    holder.replaceChildren();
    scoreChart(holder, labels, data);
  }
}

// A chart may be drawn where it is not shown yet, and a phone may be turned.
function asWideAs(holder) {
  const resized = new ResizeObserver(() => {
    if (holder.clientWidth) holder.plot.setSize({ width: Math.max(LEAST_WIDTH, holder.clientWidth), height: HEIGHT });
  });
  resized.observe(holder);
  return resized;
}

// What was drawn is held for ever by what draws it, unless it is told.
export const forgetCharts = (place) => place.querySelectorAll(".chart").forEach((holder) => holder.plot?.destroy());

// Lines differ by more than their colours.
const DASHES = [[], [8, 4], [2, 3], [10, 3, 2, 3]];
const BORDERS = ["solid", "dashed", "dotted", "double"];

// Scores from 0 to 1 over seconds.
export function scoreChart(holder, labels, data) {
  holder.plot?.destroy();
  if (!window.uPlot) { // it could not be loaded, or does not run in this browser
    holder.replaceChildren(element("p", { class: "quiet" }, "This browser could not load what draws the chart."));
    return;
  }
  holder.setAttribute("role", "img");
  holder.setAttribute("aria-label", `Chart of scores from 0 to 1 over time: ${labels.join(", ")}`);
  const axis = { stroke: colour("quiet"), grid: { stroke: colour("line"), width: 1 }, ticks: { show: false } };
  holder.plot = new window.uPlot({
    width: Math.max(LEAST_WIDTH, holder.clientWidth), height: HEIGHT,
    scales: { x: { time: false }, y: { range: [0, 1] } },
    axes: [{ ...axis, size: 30, incrs: STEPS_S, values: (_, all) => all.map((v) => axisTime(v)) }, { ...axis, size: 40 }],
    legend: { markers: { dash: (_, at) => BORDERS[at - 1] } },
    series: [{ label: "", value: (_, v) => (v === null ? "" : `${v.toFixed(1)} s`) }, ...labels.map((label, at) => ({
      label, stroke: labelColour(label), width: 2, dash: DASHES[at], points: { show: false },
      value: (_, v) => (v === null ? "" : v.toFixed(2)),
    }))],
  }, data, holder);
  holder.resized ??= asWideAs(holder);
}
