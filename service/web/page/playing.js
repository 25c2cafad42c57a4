// One sound plays at a time, wherever it was chosen, and buttons show whether theirs does.

import { button, say, short } from "./dom.js";

// After a long wait a browser may have forgotten that somebody pressed.
export const PRESS_AGAIN = "It can be played now: press Play again.";

const audio = new Audio();
let wanted = {}; // the sound, and the second of it, that was asked for last
let playing = {}; // the same, of what plays
let turn = 0; // of what is asked for; what was asked for before gives way
let pauseOther = () => {}; // what played last

// What begins to play stops what played; `pause` stops it in its turn.
export function alone(pause) {
  if (pause !== pauseOther) pauseOther();
  pauseOther = pause;
}

export const silence = () => pauseOther();

function pause() {
  turn++;
  audio.pause();
  stopped();
}

// A part that has ended while another one follows goes on.
audio.addEventListener("pause", () => audio.paused && !(audio.ended && audio.onended) && stopped());

function stopped() {
  playing = {};
  tell();
}

const key = ({ id, start }) => (id === undefined ? "" : `${start} ${id}`);
const isPressed = (one) => String(one.dataset.plays === key(playing));

function tell() {
  for (const one of document.querySelectorAll("[data-plays]")) one.setAttribute("aria-pressed", isPressed(one));
}

// A button that plays a sound from a second of it on, and stops it.
export function playButton(text, id, start, work, attributes = {}) {
  const made = button(text, work, { ...attributes, "data-plays": key({ id, start }) });
  made.setAttribute("aria-pressed", isPressed(made));
  return made;
}

// Play a sound from a second of it on; or stop it, if it plays from there. A sound has an `id`, a `name`, and two
// ways to be had: `source()` as it is, and `decoded(start)` as the service hears it, for what this
// browser cannot decode. Each gives a `url`, the second of the sound that it begins `from`, and, where
// it is a part, the second at which the `next` one begins. Refusals of the service are thrown.
export async function play(sound, start = 0) {
  if (playing.id === sound.id && playing.start === start) return pause();
  const mine = ++turn;
  alone(pause);
  wanted = { id: sound.id, start };
  if (!sound.isUndecodable) {
    const isPlaying = await begin(sound, await sound.source(), start, mine);
    sound.isUndecodable = !isPlaying;
  }
  if (sound.isUndecodable) await goOn(sound, start, mine);
  return undefined;
}

// What the service hears of a sound, from a second on to its end.
async function goOn(sound, start, mine) {
  const part = await sound.decoded(start);
  if (!(await begin(sound, part, start, mine))) say(`This browser cannot play ${short(sound.name)}.`);
  if (part.next !== undefined && mine === turn) {
    audio.onended = () => mine === turn && goOn(sound, part.next, mine).catch((error) => {
      stopped();
      say(error.message);
    });
  }
}

// Whether this browser can decode it; if it is still wanted, it plays.
async function begin(sound, { url, from }, start, mine) {
  if (mine !== turn) return true;
  audio.onended = null;
  if (audio.src !== url) audio.src = url;
  audio.currentTime = start - from;
  playing = wanted;
  tell();
  try {
    await audio.play();
  } catch ({ name }) {
    if (mine !== turn) return true; // another sound was asked for
    stopped();
    if (name === "NotAllowedError") say(PRESS_AGAIN);
    if (name !== "NotSupportedError") return true;
    audio.pause(); // what fails counts as playing
    return false;
  }
  if (mine === turn) say(`Playing ${short(sound.name)}.`);
  return true;
}
