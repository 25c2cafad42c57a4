// Files on their way into a collection: how far they are, which failed and why, and those once more.

import { readable, send, sendLong } from "./api.js";
import { button, element, say, sayHowFar, seconds, short } from "./dom.js";
import { isLong } from "./limits.js";
import { durationOf } from "./wav.js";

// The browser asks before the page is left: what was not sent is not added.
const askFirst = (event) => event.preventDefault();

const all = new Map(); // by the path of their collection: they go on while another one is shown

export function addingTo(path, onEnd) {
  if (!all.has(path)) all.set(path, new Adding(path));
  return Object.assign(all.get(path), { onEnd });
}

class Adding {
  constructor(path) {
    this.path = path;
    this.waiting = [];
    this.isBusy = false;
    this.bar = element("progress", { max: 1, value: 0, hidden: true, "aria-label": "Adding" });
    this.told = element("div", { role: "status" });
    this.element = element("div", {}, this.bar, this.told);
  }

  // One after the other; those that are added meanwhile wait behind them. A file that fails stops
  // none of the others, unless they would fail as well.
  async add(files) {
    this.waiting.push(...files);
    if (this.isBusy || !this.waiting.length) return;
    this.isBusy = true;
    addEventListener("beforeunload", askFirst);
    this.told.replaceChildren();
    this.bar.hidden = false;
    const failed = [];
    const left = [];
    let done = 0;
    let known = 0; // that were there already
    while (this.waiting.length) {
      const file = this.waiting[0];
      const of = () => done + this.waiting.length;
      try {
        const isNew = await this.one(file, (share) => { this.bar.value = (done + share) / of(); });
        known += isNew ? 0 : 1;
      } catch (error) {
        failed.push({ file, error });
        if (error.mayPass) left.push(...this.waiting.slice(1), file);
      }
      done++;
      this.waiting.shift();
      if (left.length) this.waiting = [];
      else sayHowFar(`${done} of ${of()} files sent.`);
    }
    const there = known ? `, ${known} of which ${known > 1 ? "were" : "was"} there already` : "";
    say(`${done - failed.length} of ${done} ${done > 1 ? "files are" : "file is"} in the collection${there}.`);
    this.isBusy = false;
    this.bar.hidden = true;
    if (![...all.values()].some(({ isBusy }) => isBusy)) removeEventListener("beforeunload", askFirst);
    if (failed.length) this.tell(done, failed, left);
    await this.onEnd();
  }

  // -> whether its content was not there before.
  async one(file, onShare) {
    await readable(file, file.name);
    const path = `${this.path}/items`;
    const duration = await durationOf(file);
    if (!(await isLong(file, duration))) {
      try {
        return (await send(path, {}, file, onShare, file.name)).data[0].is_new;
      } catch (error) {
        if (!error.isTooLong) throw error;
      }
    }
    let isNew = true;
    const hear = ({ object, until_s, is_new }) => {
      if (object === "progress") sayHowFar(`Heard ${seconds(until_s)} of ${short(file.name)} …`);
      isNew = is_new ?? isNew;
    };
    await sendLong(path, {}, file, onShare, hear, file.name);
    return isNew;
  }

  // Once its collection is gone.
  forget() {
    all.delete(this.path);
  }

  tell(done, failed, left) {
    const rest = left.length - 1;
    this.told.replaceChildren(
      element("p", {}, `${failed.length} of ${done} ${done > 1 ? "files" : "file"} could not be added.`, rest > 0 ? ` ${rest} more were not sent.` : ""),
      element("ul", { class: "failures" }, failed.map(({ file, error }) => element("li", { class: "error" }, element("strong", {}, file.name), ` ${error.message}`))),
      left.length ? button(left.length > 1 ? `Send these ${left.length} again` : "Send it again", () => this.add(left)) : "");
  }
}
