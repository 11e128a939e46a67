// Files are dropped or chosen, sent in small groups, and become searchable while one looks.

import { call, collectionPath } from "./api.js";
import { button, count, el } from "./dom.js";

const GROUP_FILES = 40;
const GROUP_BYTES = 20e6;
const LOOK_AGAIN = 700;

// `done()` is called once documents came. The node keeps what it tells while the page around it is made anew.
export function dropping(name, done) {
  const told = el("div", { class: "told", role: "status", "aria-live": "polite" });
  const chooser = (label, attributes) => {
    const input = el("input", { type: "file", multiple: "multiple", class: "unseen", tabindex: "-1", "aria-label": label, ...attributes });
    input.addEventListener("change", () => (send([...input.files].map((file) => [file.webkitRelativePath || file.name, file])), (input.value = "")));
    return [input, button(label, () => input.click())];
  };
  const node = el("section", { class: "drop", "aria-label": "Add files" },
    el("p", {}, el("strong", {}, "Drop files or folders here"), " to make them searchable."),
    el("p", { class: "quiet" }, "PDF, Word, PowerPoint, Excel, EPUB, HTML, Markdown, e-mail, text, code, CSV, JSON, Parquet, and archives of them."),
    el("div", { class: "actions" }, ...chooser("Choose files", {}), ...chooser("Choose a folder", { webkitdirectory: "webkitdirectory" })), told);
  for (const kind of ["dragenter", "dragover"]) node.addEventListener(kind, (event) => (event.preventDefault(), node.classList.add("over")));
  node.addEventListener("dragleave", (event) => node.contains(event.relatedTarget) || node.classList.remove("over"));
  node.addEventListener("drop", async (event) => {
    event.preventDefault();
    node.classList.remove("over");
    // All of them before anything is waited for: the list is empty afterwards.
    const entries = [...event.dataTransfer.items].map((one) => one.webkitGetAsEntry?.()).filter(Boolean);
    const plain = [...event.dataTransfer.files];
    send(entries.length ? (await Promise.all(entries.map(below))).flat() : plain.map((file) => [file.name, file]));
  });

  async function send(files) {
    const wanted = files.filter(([path]) => !path.split("/").some((part) => part.startsWith(".")));
    const groups = [];
    for (const file of wanted) {
      const last = groups.at(-1);
      if (last && last.length < GROUP_FILES && last.reduce((sum, [, one]) => sum + one.size, file[1].size) <= GROUP_BYTES) last.push(file);
      else groups.push([file]);
    }
    const bar = el("progress", { max: wanted.length, "aria-label": "Files sent" });
    const line = el("p", {});
    const wrong = el("ul", { class: "advice" });
    told.replaceChildren(bar, line, wrong);
    let sent = 0;
    let documents = 0;
    const fail = (file, reason) => wrong.append(el("li", {}, el("code", {}, file), ` ${reason}`));
    for (const group of groups) {
      bar.value = sent;
      line.textContent = `Reading ${count(sent + 1)} to ${count(sent + group.length)} of ${count(wanted.length)} files`;
      const form = new FormData();
      for (const [path, file] of group) form.append("file", file, path);
      try {
        const answer = await call(`${collectionPath(name)}/documents/upload`, { method: "POST", body: form });
        documents += answer.created + answer.updated + answer.unchanged;
        for (const one of [...answer.errors, ...answer.skipped]) fail(one.file, one.error);
      } catch (error) {
        const fields = error.problem?.errors ?? [];
        for (const one of fields) fail(one.field, one.message);
        if (!fields.length) fail(group.length === 1 ? group[0][0] : `${group.length} files`, error.message);
      }
      sent += group.length;
    }
    bar.value = sent;
    if (!documents) return (line.textContent = wanted.length ? "Nothing could be read." : "There is no file to read.");
    const words = documents === 1 ? "1 document" : `${count(documents)} documents`;
    done();
    for (;;) {
      const { counts, lexical_lag_seconds: lag } = await call(collectionPath(name));
      if (!counts.pending && lag === 0) break;
      line.textContent = `${words} written, ${count(counts.pending)} still being encoded…`;
      await new Promise((wake) => setTimeout(wake, LOOK_AGAIN));
    }
    bar.remove();
    line.replaceChildren(`${words}: searchable now. `, el("a", { href: `?collection=${encodeURIComponent(name)}` }, "Search them"));
    done();
  }

  return node;
}

// The files of a dropped entry, with their paths.
async function below(entry) {
  const path = entry.fullPath.slice(1);
  if (entry.isFile) return [[path, await new Promise((take, fail) => entry.file(take, fail))]];
  const reader = entry.createReader();
  const found = [];
  for (;;) {
    const some = await new Promise((take, fail) => reader.readEntries(take, fail));
    if (!some.length) return (await Promise.all(found.map(below))).flat();
    found.push(...some);
  }
}
