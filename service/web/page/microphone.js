// The microphone: asked for in one place, and why it cannot be had.

import { silence } from "./playing.js";

// As it is: what browsers take out to make speech clearer is what is to be heard.
export const UNCHANGED = { echoCancellation: false, noiseSuppression: false, autoGainControl: false };

const NOT_ALLOWED = "this page is not allowed to. Allow it in the browser's settings, then try again.";
const NONE = "there is none. Connect one, then try again.";
const HELD = "another program holds it, or it does not work. Close what uses it, or connect it anew, then try again.";
const REASONS = { // in other words than those of each browser
  NotAllowedError: NOT_ALLOWED, SecurityError: NOT_ALLOWED,
  NotFoundError: NONE, OverconstrainedError: NONE,
  NotReadableError: HELD, AbortError: HELD,
};

// -> its stream; what plays is silent from then on. Throws a sentence with a remedy.
export async function microphone() {
  if (!navigator.mediaDevices) {
    throw new Error(`Browsers give no page at ${location.origin} the microphone: open this page by https://, or by http://localhost on the machine of the service.`);
  }
  try {
    const stream = await navigator.mediaDevices.getUserMedia({ audio: UNCHANGED });
    silence();
    return stream;
  } catch ({ name }) {
    throw new Error(`The microphone cannot be used: ${REASONS[name] ?? HELD}`);
  }
}
