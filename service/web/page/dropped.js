// What is dropped on the page: files, and those in folders.

const MOST = 10_000; // files of one drop

// All files of a drop, folders opened; hidden ones are left out, and nothing else. The list is gone once the event is
// over, so that entries are taken at once.
export async function filesIn(transfer) {
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  if (!entries.some((entry) => entry.isDirectory)) return [...transfer.files];
  const files = [];
  for (const entry of entries) await collect(entry, files);
  return files;
}

async function collect(entry, files) {
  if (entry.name.startsWith(".")) return;
  const unread = () => { throw new Error(`${entry.fullPath} cannot be read, so that nothing was taken of what was dropped: drop the rest without it.`); };
  if (entry.isFile) {
    if (files.length === MOST) throw new Error(`More than ${MOST} files were dropped, and none was taken: drop fewer at a time, or use \u201cviola index\u201d.`);
    files.push(await new Promise((resolve, reject) => entry.file(resolve, reject)).catch(unread));
    return;
  }
  const reader = entry.createReader();
  for (;;) { // some hundred at a time
    const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject)).catch(unread);
    if (!some.length) return;
    for (const one of some.sort((a, b) => a.name.localeCompare(b.name))) await collect(one, files);
  }
}
