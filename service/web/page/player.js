// A recording to see and hear: waveform with axis and selection, log-mel, labels over time.

import WaveSurfer from "../vendor/wavesurfer/wavesurfer.esm.js";
import RegionsPlugin from "../vendor/wavesurfer/regions.esm.js";
import TimelinePlugin from "../vendor/wavesurfer/timeline.esm.js";
import { axisTime, button, colour, element, errorText, say, seconds } from "./dom.js";
import { Picture } from "./picture.js";
import { PRESS_AGAIN, alone } from "./playing.js";

const FIRST_VIEW_S = 60; // of a longer recording
const CLOSEST = 800; // pixels a second
const TICKS_S = [0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1800, 3600];
const TICK_WIDTH = 60; // pixels, with the time beside it
const MOST_TICKS = 4000; // of a recording

export const nonce = () => document.querySelector("meta[name=csp-nonce]").content;

export class Player {
  constructor(sound) {
    this.sound = sound;
    this.tracks = [];
    this.onselect = () => {};
    this.again = () => this.picture.fetch(); // after an error of the picture
    this.pause = () => this.wave.pause();
    this.onunplayable = () => {}; // the browser decoded it, and cannot play it
    this.holder = element("div", { class: "wave", role: "img", "aria-label": `Waveform of ${sound.name}` });
    this.canvas = element("canvas", { class: "picture", role: "img", "aria-label": `Log-mel spectrogram of ${sound.name}` });
    this.trackHolder = element("div");
    this.time = element("span", { class: "quiet" }, "");
    this.play = button("Play", () => this.toggle(), { class: "main", "aria-keyshortcuts": "Space" });
    this.note = element("div");
    this.element = element("div", { class: "panel" },
      element("div", { class: "row" }, this.play,
        button("Zoom in", () => this.zoom(2)), button("Zoom out", () => this.zoom(0.5)), this.time),
      this.holder, this.canvas, this.note, this.trackHolder);
  }

  // Called when the element is on the page, where it has a width.
  start() {
    const { duration } = this.sound;
    const width = this.holder.clientWidth || 600;
    this.least = width / Math.max(0.05, duration);
    this.scale = Math.max(this.least, width / FIRST_VIEW_S);
    this.regions = RegionsPlugin.create();
    this.axis = this.newAxis(width);
    this.wave = WaveSurfer.create({
      container: this.holder, height: 96, cspNonce: nonce(), url: this.sound.url,
      peaks: [this.sound.peaks], duration, minPxPerSec: this.scale, normalize: true,
      waveColor: colour("quiet"), progressColor: colour("accent"), cursorColor: colour("accent"), cursorWidth: 2,
      plugins: [this.axis, this.regions],
    });
    this.picture = new Picture(this.canvas, this.sound);
    this.picture.onerror = (error) => this.complain(error, () => this.again());
    this.wave.on("error", () => this.sound.isDecoded ? this.complain(new Error(`This browser cannot play ${this.sound.name}.`)) : this.onunplayable());
    this.canvas.addEventListener("click", (event) => {
      const { left, width: wide } = this.canvas.getBoundingClientRect();
      const [from, to] = this.picture.view;
      this.seek(from + ((event.clientX - left) / wide) * (to - from));
    });
    const shown = (from, to) => this.show(from, Math.min(to, duration) || duration);
    this.wave.on("scroll", shown);
    this.wave.on("ready", () => this.visible(shown));
    this.wave.on("redraw", () => this.visible(shown));
    this.wave.on("timeupdate", (time) => { this.picture.at(time); this.tell(time); });
    this.wave.on("play", () => { alone(this.pause); this.play.textContent = "Pause"; });
    this.wave.on("pause", () => { this.play.textContent = "Play"; });
    this.regions.enableDragSelection({ color: "rgba(120, 90, 220, 0.25)" });
    this.regions.on("region-created", (region) => {
      this.regions.getRegions().forEach((other) => other !== region && other.remove());
      this.onselect(region.start, region.end);
    });
    this.regions.on("region-updated", (region) => this.onselect(region.start, region.end));
    this.resized = new ResizeObserver(() => this.visible(shown));
    this.resized.observe(this.holder);
    this.tell(0);
  }

  visible(shown) {
    const width = this.wave.getWidth?.() || this.holder.clientWidth;
    const from = this.wave.getScroll() / this.pixels(width);
    shown(from, from + width / this.pixels(width));
  }

  newAxis(width) {
    return TimelinePlugin.create({ height: 20, timeInterval: this.tick(width), primaryLabelSpacing: 1, style: { fontSize: "12px" }, formatTimeCallback: axisTime });
  }

  // Seconds from one tick of the axis to the next.
  tick(width) {
    const least = Math.max(TICK_WIDTH / this.pixels(width), this.sound.duration / MOST_TICKS);
    return TICKS_S.find((step) => step >= least) ?? TICKS_S.at(-1);
  }

  // Pixels a second as they are drawn: a short sound fills the width.
  pixels(width) {
    return Math.max(this.scale, width / this.sound.duration);
  }

  show(from, to) {
    this.picture.show(from, to);
    for (const track of this.tracks) track.show(from, to);
  }

  complain(error, again) {
    this.note.replaceChildren(...(error ? [errorText(error, again)] : []));
  }

  forget() {
    this.tracks = [];
    this.trackHolder.replaceChildren();
  }

  add(track) {
    this.tracks.push(track);
    this.trackHolder.append(element("div", {}, element("h3", {}, track.head), track.canvas));
    if (this.picture) track.show(...this.picture.view);
  }

  tell(time) {
    this.time.textContent = `${seconds(time)} of ${seconds(this.sound.duration)}`;
  }

  toggle() {
    return this.wave?.playPause().catch(({ name }) => { // what cannot be played is told by its error
      if (name === "NotAllowedError") say(PRESS_AGAIN);
    });
  }

  seek(time) {
    this.wave?.setTime(Math.max(0, Math.min(time, this.sound.duration)));
  }

  step(by) {
    if (this.wave) this.seek(this.wave.getCurrentTime() + by);
  }

  zoom(by) {
    if (!this.wave) return;
    this.scale = Math.max(this.least, Math.min(CLOSEST, this.scale * by));
    this.wave.zoom(this.scale);
    this.axis.destroy(); // it takes no other interval than its first
    this.axis = this.wave.registerPlugin(this.newAxis(this.holder.clientWidth || 600));
  }

  close() {
    this.resized?.disconnect();
    this.wave?.destroy();
  }
}
