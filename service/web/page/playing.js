// One sound plays at a time, wherever it was chosen.

import { say } from "./dom.js";

const audio = new Audio();
let wanted = {}; // the sound, and the second of it, that was asked for last
let playing = {}; // the same, of what was last begun
let turn = 0; // of what is asked for; what was asked for before gives way

// Play a sound from a second of it on; or pause it, if it plays from there. A sound has an `id`, a `name`, and two
// ways to be had: `source()` as it is, and `decoded(start)` as the service hears it, for what this
// browser cannot decode. Each gives a `url`, the second of the sound that it begins `from`, and, where
// it is a part, the second at which the `next` one begins. Refusals of the service are thrown.
export async function play(sound, start = 0) {
  const mine = ++turn;
  if (playing.id === sound.id && playing.start === start && !audio.paused) {
    audio.pause();
    return;
  }
  wanted = { id: sound.id, start };
  if (!sound.isUndecodable) {
    const isPlaying = await begin(sound, await sound.source(), start, mine);
    sound.isUndecodable = !isPlaying;
  }
  if (sound.isUndecodable) await goOn(sound, start, mine);
}

// What the service hears of a sound, from a second on to its end.
async function goOn(sound, start, mine) {
  const part = await sound.decoded(start);
  if (!(await begin(sound, part, start, mine))) say(`This browser cannot play ${sound.name}.`);
  if (part.next !== undefined) {
    audio.onended = () => mine === turn && goOn(sound, part.next, mine).catch((error) => say(error.message));
  }
}

// Whether this browser can decode it; if it is still wanted, it plays.
async function begin(sound, { url, from }, start, mine) {
  if (mine !== turn) return true;
  audio.onended = null;
  playing = wanted;
  if (audio.src !== url) audio.src = url;
  audio.currentTime = start - from;
  try {
    await audio.play();
  } catch (error) {
    if (error.name !== "NotSupportedError") return true; // another sound was asked for
    audio.pause(); // what fails counts as playing
    return false;
  }
  say(`Playing ${sound.name}.`);
  return true;
}
