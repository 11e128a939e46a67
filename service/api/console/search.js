// The search view: what is asked lives in the URL, what is answered comes from the API, and nothing else is kept.

import { call, collectionPath, hasKey } from "./api.js";
import { complete } from "./suggestions.js";
import { conditions, facets, namesIn } from "./conditions.js";
import { $, card, copyButton, count, el, ms, note, percent } from "./dom.js";
import { hitList } from "./hits.js";
import { clearProblem, showCounts, showProblem } from "./page.js";

const STAGES = ["filter", "embed", "dense", "lexical", "fuse", "fetch", "passages", "rerank", "confidence", "highlight"];
const PARTLY = new Set(["query_truncated", "cut_short", "incomplete", "contradictory", "given_up", "not_found"]);
const PLANS = {
  exact: "exact scan",
  hnsw: "HNSW index",
  hnsw_iterative: "HNSW index, iterative",
  none: "no dense leg",
};

let collections = [];
let underway = null;

// ---------------------------------------------------------------- what is asked: form <-> URL

function asked() {
  return {
    collection: $("collection").value,
    q: $("query").value,
    mode: document.querySelector("input[name=mode]:checked").value,
    rerank: $("rerank").checked,
    k: $("k").value,
    filter: $("filter").value.trim(),
  };
}

function toUrl(state) {
  const params = new URLSearchParams();
  if (state.collection) params.set("collection", state.collection);
  if (state.q) params.set("q", state.q);
  if (state.mode !== "hybrid") params.set("mode", state.mode);
  if (state.rerank) params.set("rerank", "1");
  if (state.k !== "10") params.set("k", state.k);
  if (state.filter) params.set("filter", state.filter);
  return params.size ? `?${params}` : location.pathname;
}

function fromUrl() {
  const params = new URLSearchParams(location.search);
  const name = params.get("collection");
  if (collections.some((one) => one.name === name)) $("collection").value = name;
  $("query").value = params.get("q") ?? "";
  const mode = ["hybrid", "dense", "lexical"].includes(params.get("mode")) ? params.get("mode") : "hybrid";
  document.querySelector(`input[name=mode][value=${mode}]`).checked = true;
  $("rerank").checked = params.get("rerank") === "1";
  $("k").value = params.get("k") ?? "10";
  $("filter").value = params.get("filter") ?? "";
  showFilter(Boolean($("filter").value));
}

// The body of the request, or null after showing what is wrong with the filter.
function request(state) {
  const body = { query: state.q, mode: state.mode, k: Number(state.k), rerank: state.rerank, explain: true };
  if (!state.filter) return body;
  try {
    body.filter = JSON.parse(state.filter);
  } catch (error) {
    filterError(`Not JSON: ${error.message}`);
    return null;
  }
  return body;
}

// ---------------------------------------------------------------- searching

async function search({ remember = true } = {}) {
  const state = asked();
  if (remember && toUrl(state) !== location.search) history.pushState(null, "", toUrl(state));
  document.title = state.q ? `${state.q} – Azimuth` : "Azimuth";
  underway?.abort();
  suggestions.close();
  clearErrors();
  const collection = collections.find((one) => one.name === state.collection);
  if (!collection) return;
  if (!state.q.trim()) return showCollection(collection);
  const body = request(state);
  if (!body) return;

  const mine = (underway = new AbortController());
  document.body.classList.add("busy");
  try {
    const path = `${collectionPath(state.collection)}/search`;
    const answer = await call(path, { method: "POST", body: JSON.stringify(body), signal: mine.signal });
    showAnswer(answer, collection, state, body, path);
  } catch (error) {
    if (error.name !== "AbortError") showError(error);
  } finally {
    if (underway === mine) document.body.classList.remove("busy");
  }
}

// ---------------------------------------------------------------- showing: the answer as a whole

function showAnswer(answer, collection, state, body, path) {
  const { hits, plan } = answer;
  const found = hits.length === 1 ? "1 hit" : `${hits.length} hits`;
  $("status").textContent = `${found} in ${ms(answer.took_ms)}`;
  const facts = el("div", { class: "facts" },
    el("span", { class: "lead" }, el("b", {}, found), ` in ${ms(answer.took_ms)}`),
    el("span", {}, PLANS[plan.dense] ?? plan.dense, plan.ef_search ? `, ef_search ${plan.ef_search}` : ""),
    el("span", {}, "version ", el("b", {}, answer.embedder_version)),
    plan.selectivity !== null && el("span", {}, "filter passes ", el("b", {}, percent(plan.selectivity))),
    el("span", {}, plan.rerank ? `reranked ${plan.rerank.read} of ${plan.rerank.read + plan.rerank.skipped}` : "not reranked"),
    copyButton("Copy as curl", () => asCurl(path, body), { class: "plain" }),
  );
  const notes = answer.degraded.map((one) => note(`${PARTLY.has(one.code) ? "In part:" : "Without"} ${one.stage}.`, one.reason));
  if (plan.underfilled) notes.push(note("Fewer hits than asked for.", "More documents pass, but the index did not give them."));
  if (collection.counts.pending) {
    notes.push(note("Still being encoded.", `${count(collection.counts.pending)} documents are not in the dense leg yet.`));
  }
  const beside = el("div", {});
  facets(collection, body.filter ?? {}, namesIn(hits), addToFilter).then((found) => found && beside.replaceChildren(found), () => {});
  $("answer").replaceChildren(
    el("section", { class: "summary", "aria-label": "How this answer came about" }, facts, times(answer.timings_ms)),
    ...notes,
    conditions(body.filter ?? {}, namesIn(hits), setFilter),
    beside,
    hits.length ? hitList(hits, plan, collection.name, addToFilter) : noHits(state),
  );
}

function times(timings) {
  const known = [...STAGES.filter((stage) => stage in timings), ...Object.keys(timings).filter((stage) => !STAGES.includes(stage))];
  const total = known.reduce((sum, stage) => sum + timings[stage], 0) || 1;
  const bars = known.filter((stage) => timings[stage] > 0).map((stage) => {
    const bar = el("i", { "data-tone": stage, title: `${stage} ${ms(timings[stage])}` });
    bar.style.width = `${(100 * timings[stage]) / total}%`;
    return bar;
  });
  const legend = known.map((stage) =>
    el("li", { "data-tone": stage, class: timings[stage] > 0 ? "" : "idle" },
      el("i", {}), stage, el("span", { class: "mono" }, timings[stage] > 0 ? ms(timings[stage]) : "–")));
  return el("div", { class: "times" },
    el("div", { class: "stack", "aria-hidden": "true" }, ...bars),
    el("ul", { class: "legend", "aria-label": "Time by stage; dense and lexical run at once" }, ...legend));
}

function asCurl(path, body) {
  const url = new URL(path, document.baseURI);
  const json = JSON.stringify(body).replaceAll("'", "'\\''");
  const key = hasKey() ? " -H \"Authorization: Bearer $AZIMUTH_KEY\"" : "";
  return `curl -s '${url}'${key} -H 'Content-Type: application/json' -d '${json}'`;
}

// ---------------------------------------------------------------- showing: no answer

function showCollection(collection) {
  const { settings, counts } = collection;
  const version = collection.versions.find((one) => one.number === collection.active_version);
  const fusion = settings.fusion.method === "convex" ? `convex, ${settings.fusion.alpha} on dense` : `RRF, k ${settings.fusion.k}`;
  const lag = collection.lexical_lag_seconds;
  const facts = {
    Documents: counts.chunks === null ? count(counts.documents) : `${count(counts.documents)} in ${count(counts.chunks)} chunks`,
    Waiting: counts.pending ? `${count(counts.pending)} for the embedder` : "none",
    "Set aside": counts.failed ? count(counts.failed) : "none",
    Embedder: `${settings.embedder.model}, version ${collection.active_version}${version ? ` (${version.state})` : ""}`,
    Fingerprint: version ? el("code", {}, version.fingerprint.slice(0, 16)) : "",
    Language: settings.language,
    Fusion: fusion,
    "Lexical index": lag === null ? "being opened" : lag < 1 ? "up to date" : `${Math.round(lag)} s behind`,
  };
  const documents = el("a", { href: `?view=documents&collection=${encodeURIComponent(collection.name)}` }, counts.documents ? "Browse or add documents" : "Add documents");
  const next = counts.documents
    ? ["Ask in your own words above, or ", documents, "."]
    : ["Nothing to find yet: ", documents, ", by dropping files on the page that opens."];
  $("answer").replaceChildren(el("section", { class: "empty" }, el("h2", {}, collection.name), el("p", {}, ...next), card(facts)));
  $("status").textContent = "";
}

function noHits(state) {
  const hints = [
    state.mode === "lexical" && "Lexical search needs the words themselves: try hybrid.",
    state.filter && "The filter may let nothing through: try without it.",
  ].filter(Boolean);
  return el("section", { class: "empty" }, el("h2", {}, "Nothing found"),
    ...(hints.length ? hints : ["This collection has nothing that matches."]).map((hint) => el("p", { class: "quiet" }, hint)));
}

function showError(error) {
  $("answer").replaceChildren();
  const fields = error.problem?.errors ?? [];
  const ofFilter = fields.filter((one) => one.field === "filter" || one.field.startsWith("filter."));
  if (ofFilter.length) filterError(ofFilter.map((one) => `${one.field}: ${one.message}`).join("; "));
  if (!ofFilter.length || ofFilter.length < fields.length) showProblem(error);
}

function filterError(message) {
  showFilter(true);
  $("filter").setAttribute("aria-invalid", "true");
  $("filter-error").textContent = message;
  $("filter-error").hidden = false;
}

function clearErrors() {
  clearProblem();
  $("filter-error").hidden = true;
  $("filter").removeAttribute("aria-invalid");
}

// ---------------------------------------------------------------- the filter box

function showFilter(open) {
  $("filter-box").hidden = !open;
  $("filter-toggle").setAttribute("aria-expanded", String(open));
}

function addToFilter(name, value) {
  let filter = {};
  try {
    filter = JSON.parse($("filter").value || "{}");
  } catch {
    // what is there is no filter yet: begin anew
  }
  setFilter({ ...filter, [name]: value });
}

function setFilter(filter) {
  $("filter").value = Object.keys(filter).length ? JSON.stringify(filter) : "";
  search();
}

// ---------------------------------------------------------------- the view

export function open(found) {
  collections = found;
  $("search").hidden = false;
  $("keys").hidden = false;
  fromUrl();
  showCounts(collections);
  search({ remember: false });
  $("query").focus();
}

export function choose() {
  showCounts(collections);
  search();
}

export function goBack() {
  fromUrl();
  showCounts(collections);
  search({ remember: false });
}

const suggestions = complete($("query"), $("suggestions"), async (typed) => {
  const { collection, filter } = asked();
  const params = new URLSearchParams({ q: typed, ...(filter && { filter }) });
  return (await call(`${collectionPath(collection)}/suggest?${params}`)).suggestions.map((one) => one.text);
}, () => search());
$("search").addEventListener("submit", (event) => (event.preventDefault(), search()));
for (const id of ["rerank", "k"]) $(id).addEventListener("change", () => search());
document.querySelectorAll("input[name=mode]").forEach((radio) => radio.addEventListener("change", () => search()));
$("filter-toggle").addEventListener("click", () => {
  showFilter($("filter-box").hidden);
  if (!$("filter-box").hidden) $("filter").focus();
});
$("filter").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) search();
});
addEventListener("keydown", (event) => {
  if ($("search").hidden || event.target.closest("input, textarea, select") || event.ctrlKey || event.metaKey || event.altKey) return;
  const hits = [...document.querySelectorAll(".hit")];
  const at = hits.indexOf(document.activeElement?.closest(".hit"));
  if (event.key === "/") {
    event.preventDefault();
    $("query").select();
  } else if (event.key === "j" || event.key === "k") {
    const next = hits[Math.max(0, Math.min(hits.length - 1, at + (event.key === "j" ? 1 : -1)))];
    next?.focus();
    next?.scrollIntoView({ block: "nearest" });
  } else if (event.key === "o" && at >= 0) {
    const passage = hits[at].querySelector("details");
    passage.open = !passage.open;
  }
});
