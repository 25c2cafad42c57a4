// What the items of a collection sound like.

import { address, get } from "./api.js";

const MOST_BYTES = 64 << 20; // of audio that was played, and may be again
const PART_S = 60; // that the service decodes at a time
const LEAST_S = 0.05; // that can be a part

const held = new Map(); // what was got from an address, the longest unheard first

export class ItemSound {
  constructor(path, name) {
    this.id = path;
    this.path = path;
    this.name = name;
  }

  // The file as it was kept.
  async source() {
    return { url: await heard(`${this.path}/audio`), from: 0 };
  }

  // What the service hears of it from a second on, a part at a time.
  async decoded(start) {
    this.duration ??= (await get(this.path)).duration_s;
    const end = start + PART_S;
    const url = await heard(`${this.path}/samples`, { start_s: start, end_s: end });
    return { url, from: start, next: end < this.duration - LEAST_S ? end : undefined };
  }
}

// Audio as something to play; of all that was heard the latest is kept.
async function heard(path, query) {
  const key = address(path, query).href;
  const blob = held.has(key) ? null : await get(path, query);
  const one = held.get(key) ?? { url: URL.createObjectURL(blob), bytes: blob.size };
  held.delete(key);
  held.set(key, one);
  let bytes = [...held.values()].reduce((sum, other) => sum + other.bytes, 0);
  for (const [oldest, other] of held) {
    if (bytes <= MOST_BYTES || oldest === key) break;
    forget(oldest, other);
    bytes -= other.bytes;
  }
  return one.url;
}

function forget(key, { url }) {
  URL.revokeObjectURL(url);
  held.delete(key);
}

// What was heard of a collection that is not what it was.
export function forgetHeard() {
  for (const [key, one] of held) forget(key, one);
}
