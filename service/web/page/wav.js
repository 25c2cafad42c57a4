// WAV files: where their samples are, so that any part can be read without the rest, and new ones.

const PCM = 1;
const EXTENSIBLE = 0xfffe;
export const HEADER_BYTES = 44; // of the WAVs that are made here, and by the service

// Where the 16-bit samples of a WAV are; null for what is no such file.
export async function wavLayout(blob) {
  const view = new DataView(await blob.slice(0, 4096).arrayBuffer());
  const tag = (at) => String.fromCharCode(...[0, 1, 2, 3].map((n) => view.getUint8(at + n)));
  if (view.byteLength < 44 || tag(0) !== "RIFF" || tag(8) !== "WAVE") return null;
  let format = null;
  for (let at = 12; at + 8 <= view.byteLength; ) {
    const name = tag(at);
    const size = view.getUint32(at + 4, true);
    if (name === "fmt " && at + 24 <= view.byteLength) {
      format = {
        kind: view.getUint16(at + 8, true), channels: view.getUint16(at + 10, true),
        rate: view.getUint32(at + 12, true), bits: view.getUint16(at + 22, true),
      };
    } else if (name === "data") {
      const usable = format && [PCM, EXTENSIBLE].includes(format.kind) && format.bits === 16;
      if (!usable || !format.channels || !format.rate) return null;
      const bytes = Math.min(size, blob.size - at - 8);
      const frame = 2 * format.channels;
      return { ...format, offset: at + 8, frame, length: Math.floor(bytes / frame) };
    }
    at += 8 + size + (size % 2);
  }
  return null;
}

// Seconds of a WAV, from its head alone; null for what is no such file.
export async function durationOf(blob) {
  const layout = await wavLayout(blob);
  return layout && layout.length / layout.rate;
}

export function header(length, channels, rate) {
  const view = new DataView(new ArrayBuffer(HEADER_BYTES));
  const text = (at, letters) => [...letters].forEach((l, n) => view.setUint8(at + n, l.charCodeAt(0)));
  const bytes = 2 * length * channels;
  text(0, "RIFF"); view.setUint32(4, 36 + bytes, true); text(8, "WAVEfmt ");
  view.setUint32(16, 16, true); view.setUint16(20, PCM, true); view.setUint16(22, channels, true);
  view.setUint32(24, rate, true); view.setUint32(28, 2 * rate * channels, true);
  view.setUint16(32, 2 * channels, true); view.setUint16(34, 16, true);
  text(36, "data"); view.setUint32(40, bytes, true);
  return view.buffer;
}

export const wavOf = (samples, rate) =>
  new Blob([header(samples.length, 1, rate), samples], { type: "audio/wav" });
