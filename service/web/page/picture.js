// The log-mel that the encoder sees, in tiles from the service: only what is visible is asked for.

import { send } from "./api.js";
import { colour, sized } from "./dom.js";

const TILE_S = 8;
const MARGIN_S = 0.04; // at a cut, frames see what is not in the tile
const AT_ONCE = 3;
export const MOST_VISIBLE_S = 120;

export class Picture {
  constructor(canvas, sound) {
    this.canvas = canvas;
    this.sound = sound;
    this.tiles = new Map(); // number -> canvas, or null while it is asked for
    this.view = [0, 0];
    this.playhead = 0;
    this.running = 0;
    this.asked = 0; // tiles that were asked for, for the curious and the tests
    this.onerror = () => {}; // null: what was wrong is right again
  }

  // What the sound is is asked for first: the picture may come a moment later.
  show(start, end) {
    this.view = [start, end];
    this.draw();
    Promise.resolve(this.sound.asked).then(() => this.fetch());
  }

  at(time) {
    this.playhead = time;
    this.draw();
  }

  // The visible tiles that are missing, some at a time; those that scrolled out are not asked for.
  fetch() {
    const [start, end] = this.view;
    if (end - start > MOST_VISIBLE_S) return;
    const last = Math.min(end, this.sound.duration);
    for (let number = Math.floor(start / TILE_S); number * TILE_S < last; number++) {
      if (this.running >= AT_ONCE) return;
      if (!this.tiles.has(number)) this.ask(number);
    }
  }

  async ask(number) {
    this.tiles.set(number, null);
    this.running++;
    this.asked++;
    const start = number * TILE_S;
    const before = Math.min(start, MARGIN_S);
    const end = Math.min(start + TILE_S, this.sound.duration);
    const after = Math.min(this.sound.duration, end + MARGIN_S);
    try {
      const answer = await send("v1/audio/log-mels", {}, this.sound.part(start - before, after));
      this.tiles.set(number, painted(answer, Math.round(before / answer.hop_s), end - start));
    } catch (error) {
      this.running--;
      this.tiles.delete(number); // asked for again when the view moves
      this.onerror(error);
      return;
    }
    this.running--;
    this.onerror(null);
    this.draw();
    this.fetch();
  }

  draw() {
    const { context, width, height } = sized(this.canvas);
    const [start, end] = this.view;
    context.clearRect(0, 0, width, height);
    if (end <= start) return;
    const x = (time) => ((time - start) / (end - start)) * width;
    for (const [number, tile] of this.tiles) {
      const from = number * TILE_S;
      if (!tile || from > end || from + TILE_S < start) continue;
      context.drawImage(tile, x(from), 0, x(from + tile.seconds) - x(from), height);
    }
    if (end - start > MOST_VISIBLE_S) note(context, width, height, "Zoom in to see the log-mel.");
    context.fillStyle = colour("accent");
    context.fillRect(x(this.playhead) - 1, 0, 2, height);
  }
}

function note(context, width, height, text) {
  context.fillStyle = "#fff";
  context.font = "15px system-ui, sans-serif";
  context.textAlign = "center";
  context.fillText(text, width / 2, height / 2);
}

// An answer -> a canvas with a pixel a frame and band, the highest band above.
function painted(answer, skip, wanted) {
  const [file] = answer.data;
  const bytes = Uint8Array.from(atob(file.log_mel), (letter) => letter.charCodeAt(0));
  const frames = Math.max(1, Math.min(file.n_frames - skip, Math.round(wanted / answer.hop_s)));
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [frames, file.n_bands];
  const pixels = new ImageData(frames, file.n_bands);
  for (let frame = 0; frame < frames; frame++) {
    for (let band = 0; band < file.n_bands; band++) {
      const value = bytes[(frame + skip) * file.n_bands + band] * 3;
      pixels.data.set([PALETTE[value], PALETTE[value + 1], PALETTE[value + 2], 255],
        4 * ((file.n_bands - 1 - band) * frames + frame));
    }
  }
  canvas.getContext("2d").putImageData(pixels, 0, 0);
  canvas.seconds = frames * answer.hop_s;
  return canvas;
}

// Black, violet, orange, white: brighter is louder, also without colours.
const STOPS = [[0, 0, 0, 4], [0.35, 66, 22, 104], [0.6, 170, 52, 90], [0.8, 245, 125, 21], [1, 252, 255, 200]];
const PALETTE = Uint8Array.from({ length: 256 * 3 }, (_, at) => {
  const value = Math.floor(at / 3) / 255;
  const above = STOPS.findIndex(([stop]) => stop >= value) || 1;
  const [low, high] = [STOPS[above - 1], STOPS[above]];
  const share = (value - low[0]) / (high[0] - low[0]);
  return low[1 + (at % 3)] + share * (high[1 + (at % 3)] - low[1 + (at % 3)]);
});
