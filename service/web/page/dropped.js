// What is dropped on the page: files, and those in folders.

const MOST = 10_000; // files of one drop

// All files of a drop, folders opened; hidden ones are left out. The list is gone once the event is
// over, so that entries are taken at once.
export async function filesIn(transfer) {
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  if (!entries.some((entry) => entry.isDirectory)) return [...transfer.files];
  const files = [];
  for (const entry of entries) await collect(entry, files);
  return files;
}

async function collect(entry, files) {
  if (entry.name.startsWith(".") || files.length >= MOST) return;
  if (entry.isFile) {
    files.push(await new Promise((resolve, reject) => entry.file(resolve, reject)));
    return;
  }
  const reader = entry.createReader();
  for (;;) { // some hundred at a time
    const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (!some.length) return;
    for (const one of some.sort((a, b) => a.name.localeCompare(b.name))) await collect(one, files);
  }
}
