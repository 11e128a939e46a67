// The documents of a collection: files are added, documents browsed, read, written, changed and deleted.

import { call, collectionPath, hasKey, post, thumbnail } from "./api.js";
import { conditions, facets, namesIn } from "./conditions.js";
import { ask, Question } from "./dialog.js";
import { button, count, el, grid, moment, shorten } from "./dom.js";
import { showCounts, showProblem } from "./page.js";
import { nothing, reading, section } from "./reading.js";
import { settingsForm } from "./settings.js";
import { dropping } from "./upload.js";

const PAGE = 30;
let drop = null;

const view = reading({ view: "documents", title: "Documents", load });
export const { open, choose, goBack } = view;

const asked = () => new URLSearchParams(location.search);
const address = (name, more = {}) => `?${new URLSearchParams({ view: "documents", collection: name, ...more })}`;
const path = (name, id) => `${collectionPath(name)}/documents/${encodeURIComponent(id)}`;

// To another page of this view, without loading the console anew.
function go(name, more, again) {
  history.pushState(null, "", address(name, more));
  again();
}

function link(name, more, again, ...words) {
  const node = el("a", { href: address(name, more) }, ...words);
  node.addEventListener("click", (event) => {
    if (event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    go(name, more, again);
  });
  return node;
}

async function load(name, collections, again) {
  const id = asked().get("id");
  if (asked().has("new")) return [editor(name, { id: "", title: "", text: "", metadata: {} }, again)];
  if (id !== null) {
    const document = await call(path(name, id));
    return asked().has("edit") ? [editor(name, document, again)] : shown(name, document, again);
  }
  return list(name, again);
}

// ---------------------------------------------------------------- browsing

async function list(name, again) {
  const filter = JSON.parse(asked().get("filter") ?? "{}");
  const cursor = asked().get("cursor");
  const params = new URLSearchParams({ limit: PAGE, ...(cursor && { cursor }), ...(Object.keys(filter).length && { filter: JSON.stringify(filter) }) });
  const [page, state, { aliases }] = await Promise.all([call(`${collectionPath(name)}/documents?${params}`), call(collectionPath(name)), call("v1/aliases")]);
  showCounts([state]);
  if (drop?.name !== name) drop = { name, node: dropping(name, again) };
  const narrow = (wanted) => go(name, Object.keys(wanted).length ? { filter: JSON.stringify(wanted) } : {}, again);
  const known = namesIn(page.documents);
  const rows = page.documents.map((one) => [
    link(name, { id: one.id }, again, one.title || shorten(one.text, 80) || one.id),
    el("code", {}, one.id),
    el("span", { class: "words" }, thumbnail(name, one), shorten(one.text, 140)),
    el("span", { class: "when" }, moment(one.updated_at)),
  ]);
  const empty = Object.keys(filter).length
    ? nothing("No document passes the filter", "Take a condition away to see more.")
    : nothing("No document yet", "Drop files above, or write one here. From a shell: azimuth ingest FOLDER --collection " + name);
  return [
    drop.node,
    section("Documents",
      el("div", { class: "line wrap" }, button("New document", () => go(name, { new: "1" }, again), { "data-key": "new" }),
        !hasKey() && el("a", { href: `${collectionPath(name)}/export`, download: `${name}.ndjson`, class: "quiet" }, "Download all")),
      state.counts.documents > 0 && conditions(filter, known, narrow),
      await facets(state, filter, known, (field, value) => narrow({ ...filter, [field]: value })),
      rows.length ? grid("Documents", ["Title", "Id", "Text", "Changed"], rows) : empty,
      el("div", { class: "actions" },
        cursor && button("First page", () => go(name, { ...(asked().get("filter") && { filter: asked().get("filter") }) }, again)),
        page.next_cursor && button("Next page", () => go(name, { ...(asked().get("filter") && { filter: asked().get("filter") }), cursor: page.next_cursor }, again)))),
    section("This collection", naming(name, aliases, again), settingsForm(name, state.settings, again),
      el("div", { class: "actions" }, button("Delete the collection", () => ask(deletion(name, state.counts.documents)), { class: "danger" }))),
  ];
}

// Other names that lead to the collection, which an operator may switch.
function naming(name, aliases, again) {
  const mine = aliases.filter((one) => one.collection === name);
  const alias = el("input", { "aria-label": "Alias", placeholder: "alias", required: "required", size: "14", spellcheck: "false", pattern: "[a-z0-9][a-z0-9_\\-]{0,62}" });
  const form = el("form", { class: "line adding" }, alias, el("button", { type: "submit" }, "Let it lead here"));
  const change = (method, to) => call(`v1/aliases/${encodeURIComponent(to)}`, { method, ...(method === "PUT" && { body: JSON.stringify({ collection: name }) }) })
    .then(again, (error) => showProblem(error));
  form.addEventListener("submit", (event) => (event.preventDefault(), change("PUT", alias.value.trim())));
  return el("div", { class: "conditions" },
    el("span", { class: "quiet" }, mine.length ? "Aliases" : "No alias leads to it: a name that clients use, and that you can switch to another collection."),
    ...mine.map((one) => button(`${one.alias} ✕`, () => change("DELETE", one.alias), { class: "chip set", "aria-label": `Take away the alias ${one.alias}` })), form);
}

const deletion = (name, documents) => new Question({
  title: `Delete the collection ${name}?`, danger: true, label: "Delete it", noted: false,
  words: [el("p", {}, `Its ${count(documents)} documents, vectors and settings are gone for good.`)],
  oath: `Yes, delete ${name} and all that is in it.`,
  act: async () => {
    await call(`${collectionPath(name)}?confirm=${encodeURIComponent(name)}`, { method: "DELETE" });
    location.assign("./");
  },
});

// ---------------------------------------------------------------- one document

function shown(name, one, again) {
  const remove = new Question({
    title: "Delete this document?", danger: true, label: "Delete it", noted: false, words: [el("p", {}, one.title || one.id)],
    act: async () => {
      await call(path(name, one.id), { method: "DELETE" });
      go(name, {}, again);
    },
  });
  const facts = Object.entries(one.metadata).map(([field, value]) => [field, typeof value === "string" ? value : el("code", {}, JSON.stringify(value))]);
  return [el("article", { class: "part document" },
    el("p", { class: "quiet" }, link(name, {}, again, "All documents"), " / ", one.id),
    el("h2", {}, one.title || one.id),
    thumbnail(name, one),
    el("div", { class: "passage whole", tabindex: "0", role: "region", "aria-label": "Text" }, one.text),
    el("dl", { class: "card" }, ...[...facts, ["Changed", moment(one.updated_at)], ["Revision", String(one.revision)]].flatMap(([field, value]) => [el("dt", {}, field), el("dd", {}, value)])),
    el("div", { class: "actions" }, button("Edit", () => go(name, { id: one.id, edit: "1" }, again)), button("Delete", () => ask(remove), { class: "danger" })))];
}

function editor(name, one, again) {
  const field = (label, node) => el("label", { class: "wide" }, label, node);
  const id = el("input", { required: "required", maxlength: "512", spellcheck: "false", value: one.id, ...(one.id ? { readonly: "readonly" } : { autofocus: "autofocus" }) });
  const title = el("input", { maxlength: "10000", value: one.title });
  const text = el("textarea", { rows: "14", ...(one.id && { autofocus: "autofocus" }) }, one.text);
  const metadata = el("textarea", { rows: "5", spellcheck: "false" }, JSON.stringify(one.metadata, null, 1));
  const wrong = el("p", { class: "field-error", role: "alert", hidden: "hidden" });
  const form = el("form", { class: "sheet editor", autocomplete: "off", "aria-label": one.id ? "Edit the document" : "A new document" },
    el("h2", {}, one.id ? "Edit the document" : "A new document"),
    field("Id", id), field("Title", title), field("Text", text), field("Metadata, as JSON", metadata), wrong,
    el("div", { class: "actions" }, el("button", { type: "submit", class: "primary" }, "Save"), button("Cancel", () => go(name, one.id ? { id: one.id } : {}, again))));
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    try {
      const document = { id: id.value.trim(), title: title.value, text: text.value, metadata: JSON.parse(metadata.value || "{}"), image: one.image };
      await post(`${collectionPath(name)}/documents`, { documents: [document] });
      go(name, { id: document.id }, again);
    } catch (error) {
      wrong.textContent = error instanceof SyntaxError ? `The metadata is not JSON: ${error.message}` : error.message;
      wrong.hidden = false;
    }
  });
  return form;
}

// A file that misses its place must not replace the page.
for (const kind of ["dragover", "drop"]) addEventListener(kind, (event) => event.preventDefault());
