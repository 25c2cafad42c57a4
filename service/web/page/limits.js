// What a request may hold, as the service says; what is longer is answered in lines.

import { get } from "./api.js";

const FORM_BYTES = 2000; // of a form, around its file

let limits = null;

export async function knownLimits() {
  limits ??= await get("v1/limits");
  return limits;
}

// Whether a file of so many seconds, null where they are not known, is too much for one request.
export async function isLong(file, duration) {
  const { max_duration_s, max_body_bytes } = await knownLimits();
  return file.size > max_body_bytes - FORM_BYTES || (duration ?? 0) > max_duration_s;
}
