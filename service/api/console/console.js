// The console: which view is shown stands in the URL, as all that is asked does.

import { call, useKey } from "./api.js";
import { showCreation } from "./creation.js";
import { $, el } from "./dom.js";
import { askingForKey, clearProblem, showProblem } from "./page.js";

// Of each view the page loads what it needs.
const VIEWS = {
  search: () => import("./search.js"),
  documents: () => import("./documents.js"),
  overview: () => import("./overview.js"),
  versions: () => import("./versions.js"),
  recall: () => import("./recall.js"),
  geometry: () => import("./geometry.js"),
  drift: () => import("./drift.js"),
  jobs: () => import("./jobs.js"),
  keys: () => import("./keys.js"),
  index: () => import("./health.js"),
};

function askedView() {
  const name = new URLSearchParams(location.search).get("view");
  return Object.hasOwn(VIEWS, name) ? name : "search";
}

const shown = askedView();
const view = await VIEWS[shown]();

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
  const known = collections.find((one) => one.name === asked);
  if (collections.length) $("collection").value = (known ?? collections.reduce((a, b) => (b.counts.documents > a.counts.documents ? b : a))).name;
  linkViews();
  if (!collections.length && shown !== "keys") return showCreation(true);
  view.open(collections);
}

// All views of the collection that is chosen.
function linkViews() {
  const name = encodeURIComponent($("collection").value);
  for (const link of document.querySelectorAll("#views a")) {
    const one = link.dataset.view;
    link.href = one === "search" ? `?collection=${name}` : `?view=${one}&collection=${name}`;
    if (one === shown) link.setAttribute("aria-current", "page");
  }
  const health = document.querySelector(`#health [data-view="${shown}"]`) !== null;
  $("health").hidden = !health;
  document.querySelector("#views [data-area]").classList.toggle("here", health);
}

$("collection").addEventListener("change", () => (linkViews(), view.choose()));
$("create").addEventListener("click", () => showCreation(false));
$("key").addEventListener("submit", (event) => {
  event.preventDefault();
  useKey($("api-key").value);
  $("api-key").value = "";
  start();
});
// Going back may lead to another view: then the page begins anew.
addEventListener("popstate", () => {
  if (askedView() !== shown) return location.reload();
  view.goBack();
  linkViews();
});

start();
