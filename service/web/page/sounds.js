// A sound of this tab: the file, how to play it, and any part of it as samples.

import { decoded, readable } from "./api.js";
import { HEADER_BYTES, header, wavLayout, wavOf } from "./wav.js";

const RATE = 16_000; // Hz, what the encoder hears
const PEAKS_PER_S = 50;
const PIECE_BYTES = 4 << 20;
let count = 0;

export class Sound {
  constructor(file, name) {
    this.id = ++count;
    this.file = file;
    this.name = name ?? file.name;
    this.url = URL.createObjectURL(file);
    this.duration = null; // seconds, once known
    this.peaks = null;
    this.samples = null; // Int16 at 16 kHz, of what is not read from the file part by part
    this.layout = null;
    this.isPlayable = false;
    this.isDecoded = false; // by the service
    this.analysis = null;
    this.error = null;
    this.opened = null;
    this.looked = null;
    this.asked = null; // settled once the service has said what it is; it may be asked again where null
  }

  // Its head alone: how long a WAV is, without reading it.
  look() {
    this.looked ??= readable(this.file, this.name).then(() => wavLayout(this.file)).then((layout) => {
      this.layout = layout;
      if (layout) this.duration = layout.length / layout.rate;
    });
    return this.looked;
  }

  // Read what is needed to show it. A WAV of any length is read part by part, and never kept; other
  // formats are decoded whole by the browser: two bytes a sample stay, 115 MB an hour.
  open(onProgress = () => {}) {
    this.opened ??= this._open(onProgress);
    return this.opened;
  }

  async _open(onProgress) {
    await this.look();
    if (this.layout) {
      this.peaks = await this._peaksOfFile(onProgress);
      this.isPlayable = true;
      return this;
    }
    const samples = await decode(await this.file.arrayBuffer());
    if (samples !== null) this._hold(samples);
    return this;
  }

  // What the service decodes, at 16 kHz, takes the place of what this browser cannot.
  async openDecoded() {
    if (this.isDecoded) return;
    const wav = await decoded(this.file, this.name);
    this._hold(new Int16Array(await wav.slice(HEADER_BYTES).arrayBuffer()));
    URL.revokeObjectURL(this.url);
    this.url = URL.createObjectURL(wav);
    this.isDecoded = true;
  }

  // How it is played; see playing.js.
  source() {
    return { url: this.url, from: 0 };
  }

  async decoded() {
    await this.openDecoded();
    return this.source();
  }

  _hold(samples) {
    this.samples = samples;
    this.duration = samples.length / RATE;
    this.peaks = peaks(samples, 1, RATE / PEAKS_PER_S, Math.ceil(this.duration * PEAKS_PER_S));
    this.isPlayable = true;
  }

  get isDecodable() {
    return this.layout !== null || this.samples !== null;
  }

  // Seconds from `start` to `end` as a WAV of their own.
  part(start, end) {
    if (this.samples) {
      return wavOf(this.samples.slice(Math.round(start * RATE), Math.round(end * RATE)), RATE);
    }
    const { offset, frame, rate, channels, length } = this.layout;
    const first = Math.max(0, Math.round(start * rate));
    const last = Math.min(length, Math.round(end * rate));
    const data = this.file.slice(offset + first * frame, offset + last * frame);
    return new Blob([header(last - first, channels, rate), data], { type: "audio/wav" });
  }

  async _peaksOfFile(onProgress) {
    const { offset, frame, rate, channels, length } = this.layout;
    const found = new Float32Array(Math.ceil(this.duration * PEAKS_PER_S));
    const step = Math.max(1, Math.floor(PIECE_BYTES / frame / rate)) * rate; // whole seconds
    for (let first = 0; first < length; first += step) {
      const last = Math.min(length, first + step);
      const data = await this.file.slice(offset + first * frame, offset + last * frame).arrayBuffer();
      const many = Math.ceil(((last - first) / rate) * PEAKS_PER_S);
      const some = peaks(new Int16Array(data), channels, rate / PEAKS_PER_S, many);
      found.set(some.subarray(0, found.length - (first / rate) * PEAKS_PER_S), (first / rate) * PEAKS_PER_S);
      onProgress(last / length);
    }
    return found;
  }

  forget() {
    URL.revokeObjectURL(this.url);
  }
}

// The highest value of each stretch, from 0 to 1.
function peaks(samples, channels, perPeak, many) {
  const found = new Float32Array(many);
  for (let at = 0; at < many; at++) {
    const end = Math.min(samples.length, Math.round((at + 1) * perPeak) * channels);
    let most = 0;
    for (let n = Math.round(at * perPeak) * channels; n < end; n++) most = Math.max(most, Math.abs(samples[n]));
    found[at] = most / 32768;
  }
  return found;
}

// A file's bytes -> its samples at 16 kHz, mono; null where this browser cannot decode it.
export async function decode(bytes) {
  if (!bytes.byteLength) return null; // WebKit never says that there is nothing in nothing
  try {
    const audio = await new OfflineAudioContext(1, 1, RATE).decodeAudioData(bytes);
    const mono = new Int16Array(audio.length);
    const channels = Array.from({ length: audio.numberOfChannels }, (_, n) => audio.getChannelData(n));
    for (let n = 0; n < mono.length; n++) {
      let sum = 0;
      for (const channel of channels) sum += channel[n];
      mono[n] = Math.max(-32768, Math.min(32767, Math.round((32768 * sum) / channels.length)));
    }
    return mono;
  } catch {
    return null;
  }
}

export const wavFile = (samples, name) => new File([wavOf(samples, RATE)], name, { type: "audio/wav" });
