// Points on a canvas: a click, or arrow keys and Enter, choose the nearest one.

import { Delaunay } from "../vendor/d3-delaunay/d3-delaunay.min.js";
import { colour, element, sized } from "./dom.js";
import { labelColour } from "./words.js";

const EDGE = 28;

// points: [{x, y, name, label}]
export class PointMap {
  constructor(onChoose, about = "Map of sounds") {
    this.points = [];
    this.chosen = -1;
    this.onChoose = onChoose;
    this.canvas = element("canvas", { class: "map", tabindex: 0, role: "application", "aria-label": `${about}: arrow keys go from sound to sound, Enter plays` });
    this.said = element("p", { class: "quiet", role: "status" });
    this.element = element("div", {}, this.canvas, this.said);
    this.canvas.addEventListener("click", (event) => {
      const { left, top } = this.canvas.getBoundingClientRect();
      if (this.points.length) this.choose(this.nearest(event.clientX - left, event.clientY - top), true);
    });
    this.canvas.addEventListener("keydown", (event) => this.key(event));
    this.resized = new ResizeObserver(() => this.draw());
    this.resized.observe(this.canvas);
  }

  show(points) {
    this.points = points;
    this.chosen = Math.min(this.chosen, points.length - 1);
    this.draw();
  }

  places() {
    const { width, height } = this.canvas.getBoundingClientRect();
    const [xs, ys] = ["x", "y"].map((axis) => this.points.map((point) => point[axis]));
    const place = (value, all, size) => {
      const [low, high] = [Math.min(...all), Math.max(...all)];
      return high > low ? EDGE + ((value - low) / (high - low)) * (size - 2 * EDGE) : size / 2;
    };
    return this.points.map(({ x, y }) => [place(x, xs, width), place(y, ys, height)]);
  }

  nearest(x, y) {
    return Delaunay.from(this.places()).find(x, y);
  }

  choose(at, isPlayed) {
    this.chosen = at;
    this.said.textContent = `${this.points[at].name}${this.points[at].label ? `: ${this.points[at].label}` : ""}`;
    this.draw();
    this.onChoose(this.points[at], isPlayed);
  }

  key(event) {
    const way = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (!this.points.length || !(way || event.key === "Enter")) return;
    event.preventDefault();
    if (!way) return this.choose(Math.max(0, this.chosen), true);
    if (this.chosen < 0) return this.choose(0, false);
    const places = this.places();
    const [x, y] = places[this.chosen];
    let best = this.chosen;
    let least = Infinity;
    places.forEach(([px, py], at) => {
      const along = (px - x) * way[0] + (py - y) * way[1];
      const across = Math.abs((px - x) * way[1] + (py - y) * way[0]);
      if (along > 0 && along + 2 * across < least) [best, least] = [at, along + 2 * across];
    });
    this.choose(best, false);
  }

  draw() {
    const { context, width, height } = sized(this.canvas);
    context.clearRect(0, 0, width, height);
    if (!width) return;
    const many = this.points.length > 30;
    context.font = "12px system-ui, sans-serif";
    const named = []; // where names stand already: none is written over another
    this.places().forEach(([x, y], at) => {
      const point = this.points[at];
      context.fillStyle = labelColour(point.label ?? point.name);
      context.beginPath();
      context.arc(x, y, at === this.chosen ? 9 : many ? 5 : 7, 0, 7);
      context.fill();
      if (at === this.chosen) {
        context.strokeStyle = colour("ink");
        context.lineWidth = 2;
        context.stroke();
      }
      const isFree = !many && !named.some(([nx, ny]) => Math.abs(nx - x) < 90 && Math.abs(ny - y) < 14);
      if (isFree || at === this.chosen) {
        named.push([x, y]);
        context.fillStyle = colour("ink");
        context.textAlign = x > width / 2 ? "right" : "left";
        context.fillText(point.name, x + (x > width / 2 ? -11 : 11), y + 4);
      }
    });
  }
}

// Vectors -> places in the plane that keep their distances best (principal coordinates).
export function plane(vectors) {
  const n = vectors.length;
  const gram = vectors.map((a) => vectors.map((b) => cosine(a, b)));
  const means = gram.map((row) => row.reduce((sum, v) => sum + v, 0) / n);
  const mean = means.reduce((sum, v) => sum + v, 0) / n;
  const centred = gram.map((row, i) => row.map((v, j) => v - means[i] - means[j] + mean));
  const axes = [0, 1].map((axis) => strongest(centred, axis));
  return gram.map((_, at) => ({ x: axes[0][at] ?? 0, y: axes[1][at] ?? 0 }));
}

// The first principal axis by repeated multiplication; it is then taken out of the matrix.
function strongest(matrix, seed) {
  const n = matrix.length;
  let axis = Array.from({ length: n }, (_, at) => Math.sin(1 + at * (1.7 + seed)));
  let size = 0;
  for (let round = 0; round < 60; round++) {
    const next = matrix.map((row) => row.reduce((sum, v, at) => sum + v * axis[at], 0));
    size = Math.hypot(...next);
    if (size < 1e-9) return new Array(n).fill(0);
    axis = next.map((v) => v / size);
  }
  matrix.forEach((row, i) => row.forEach((_, j) => { row[j] -= size * axis[i] * axis[j]; }));
  return axis.map((v) => v * Math.sqrt(size));
}

export function cosine(a, b) {
  let [product, left, right] = [0, 0, 0];
  for (let n = 0; n < a.length; n++) {
    product += a[n] * b[n];
    left += a[n] * a[n];
    right += b[n] * b[n];
  }
  return product / Math.max(1e-12, Math.sqrt(left * right));
}
