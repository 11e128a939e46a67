// The console: which view is shown stands in the URL, as all that is asked does.

import { call, useKey } from "./api.js";
import { $, el } from "./dom.js";
import { askingForKey, clearProblem, showProblem } from "./page.js";
import * as search from "./search.js";
import * as versions from "./versions.js";

const asksForVersions = () => new URLSearchParams(location.search).get("view") === "versions";
const view = asksForVersions() ? versions : search;

async function start() {
  clearProblem();
  let collections;
  try {
    ({ collections } = await call("v1/collections"));
  } catch (error) {
    return showProblem(error);
  }
  askingForKey(false);
  const asked = new URLSearchParams(location.search).get("collection");
  $("collection").replaceChildren(...collections.map((one) => el("option", { value: one.name }, one.name)));
  if (!collections.length) return showNoCollections();
  const known = collections.find((one) => one.name === asked);
  $("collection").value = (known ?? collections.reduce((a, b) => (b.counts.documents > a.counts.documents ? b : a))).name;
  linkViews();
  view.open(collections);
}

// Both views of the collection that is chosen.
function linkViews() {
  const name = encodeURIComponent($("collection").value);
  for (const [id, href, here] of [
    ["to-search", `?collection=${name}`, view === search],
    ["to-versions", `?view=versions&collection=${name}`, view === versions],
  ]) {
    $(id).href = href;
    if (here) $(id).setAttribute("aria-current", "page");
  }
}

function showNoCollections() {
  const example = `azimuth ingest documents.jsonl --collection papers\n\n# or over HTTP\ncurl -X PUT ${location.origin}/v1/collections/papers\n` +
    `curl ${location.origin}/v1/collections/papers/documents \\\n  -H 'Content-Type: application/json' \\\n` +
    `  -d '{"documents": [{"id": "1", "title": "First", "text": "Some text."}]}'`;
  $("answer").replaceChildren(el("section", { class: "empty" }, el("h2", {}, "No collection yet"),
    el("p", { class: "quiet" }, "A collection is a named set of documents. Make the first one:"), el("pre", {}, example)));
}

$("collection").addEventListener("change", () => (linkViews(), view.choose()));
$("key").addEventListener("submit", (event) => {
  event.preventDefault();
  useKey($("api-key").value);
  $("api-key").value = "";
  start();
});
// Going back may lead to the other view: then the page begins anew.
addEventListener("popstate", () => {
  if (asksForVersions() !== (view === versions)) return location.reload();
  view.goBack();
  linkViews();
});

start();
