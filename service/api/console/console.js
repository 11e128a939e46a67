// The search page: what is asked lives in the URL, what is answered comes from the API, and nothing else is kept.
// Nothing from the service is ever put in as HTML: text goes in as text, and of highlights only <mark> is understood.

const $ = (id) => document.getElementById(id);
const STAGES = ["filter", "embed", "dense", "lexical", "fuse", "fetch", "rerank", "highlight"];
const PLANS = {
  exact: "exact scan",
  hnsw: "HNSW index",
  hnsw_iterative: "HNSW index, iterative",
  none: "no dense leg",
};
const KEY = "azimuth-key";

let collections = [];
let underway = null;

class Refused extends Error {
  constructor(problem, status) {
    super(problem.detail || problem.title || `The service answered ${status}.`);
    this.status = status;
    this.problem = problem;
  }
}

// ---------------------------------------------------------------- the API

async function call(path, options = {}) {
  const key = sessionStorage.getItem(KEY);
  const headers = { ...(key && { Authorization: `Bearer ${key}` }), ...(options.body && { "Content-Type": "application/json" }) };
  const response = await fetch(path, { ...options, headers });
  if (response.ok) return response.json();
  throw new Refused(await response.json().catch(() => ({})), response.status);
}

const collectionPath = (name) => `v1/collections/${encodeURIComponent(name)}`;

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

async function start() {
  clearErrors();
  try {
    collections = (await call("v1/collections")).collections;
  } catch (error) {
    return showError(error);
  }
  askingForKey(false);
  const chosen = $("collection").value;
  $("collection").replaceChildren(...collections.map((one) => el("option", { value: one.name }, one.name)));
  if (!collections.length) return showNoCollections();
  $("collection").value = chosen || collections.reduce((a, b) => (b.counts.documents > a.counts.documents ? b : a)).name;
  fromUrl();
  showCounts();
  search({ remember: false });
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
    el("span", {}, plan.reranked ? "reranked" : "not reranked"),
    copyButton(path, body),
  );
  const notes = answer.degraded.map((one) => note(`Without ${one.stage}.`, one.reason));
  if (plan.underfilled) notes.push(note("Fewer hits than asked for.", "More documents pass, but the index did not give them."));
  if (collection.counts.pending) {
    notes.push(note("Still being encoded.", `${count(collection.counts.pending)} documents are not in the dense leg yet.`));
  }
  $("answer").replaceChildren(
    el("section", { class: "summary", "aria-label": "How this answer came about" }, facts, times(answer.timings_ms)),
    ...notes,
    hits.length ? hitList(hits, plan) : noHits(state),
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

function copyButton(path, body) {
  const button = el("button", { type: "button", class: "plain" }, "Copy as curl");
  button.addEventListener("click", async () => {
    const url = new URL(path, document.baseURI);
    const json = JSON.stringify(body).replaceAll("'", "'\\''");
    const key = sessionStorage.getItem(KEY) ? " -H \"Authorization: Bearer $AZIMUTH_KEY\"" : "";
    await navigator.clipboard.writeText(`curl -s '${url}'${key} -H 'Content-Type: application/json' -d '${json}'`);
    button.textContent = "Copied";
    setTimeout(() => (button.textContent = "Copy as curl"), 1500);
  });
  return button;
}

// ---------------------------------------------------------------- showing: hits

function hitList(hits, plan) {
  const best = Math.max(...hits.map((hit) => hit.explain.fusion)) || 1;
  return el("ol", { class: "hits" }, ...hits.map((hit, at) => el("li", {}, hitRow(hit, at, plan, best))));
}

function hitRow(hit, at, plan, best) {
  const text = hit.text ?? "";
  const snippets = hit.highlights?.length ? hit.highlights.map((html) => excerpt(html, text)) : [[shorten(text, 220)]];
  const passage = el("details", {},
    el("summary", {}, `Passage ${hit.chunk + 1}, characters ${count(hit.start)} to ${count(hit.end)}`),
    el("div", { class: "passage" }, text));
  const body = el("div", {},
    el("h2", {}, hit.title || hit.id),
    hit.title !== hit.id && el("div", { class: "id" }, hit.id),
    ...snippets.map((parts) => el("p", { class: "snippet" }, ...parts)),
    chips(hit.metadata ?? {}),
    passage);
  return el("article", { class: "hit", tabindex: "-1", "aria-label": `${at + 1}: ${hit.title || hit.id}` },
    el("div", { class: "rank", "aria-hidden": "true" }, at + 1), body, scores(hit, at, plan, best));
}

function chips(metadata) {
  const all = Object.entries(metadata).map(([name, value]) => {
    const text = typeof value === "string" ? value : JSON.stringify(value);
    const parts = [el("span", {}, `${name} `), shorten(text, 60)];
    if (value !== null && typeof value === "object") return el("span", { class: "chip", title: text }, ...parts);
    const button = el("button", { type: "button", class: "chip", title: `Only where ${name} is ${text}` }, ...parts);
    button.addEventListener("click", () => addToFilter(name, value));
    return button;
  });
  return all.length > 0 && el("div", { class: "chips" }, ...all);
}

function scores(hit, at, plan, best) {
  const { dense, lexical, fusion, rerank } = hit.explain;
  const rows = [
    leg("dense", dense, plan.mode !== "lexical"),
    leg("lexical", lexical, plan.mode !== "dense"),
    row("fusion", "fuse", fusion / best, "", number(fusion), ""),
    rerank && row("rerank", "rerank", rerank.score, "", number(rerank.score), place(rerank.rank)),
  ];
  // The names of the columns stand over the first hit; the others leave them to screen readers.
  const heads = ["scaled", "score", "rank"].map((name) =>
    el("th", { scope: "col" }, el("span", { class: at ? "unseen" : "" }, name)));
  return el("table", { class: "scores", "aria-label": "Scores by stage" },
    el("thead", {}, el("tr", {}, el("td", { class: "total", colspan: "2" }, el("b", {}, number(hit.score)), "score"), ...heads)),
    el("tbody", {}, ...rows.filter(Boolean)));
}

function leg(name, scored, asked) {
  if (!asked) return null;
  if (!scored) return el("tr", {}, el("th", { scope: "row" }, name), el("td", { class: "none", colspan: "4" }, "not found by this leg"));
  return row(name, name, scored.normalised, number(scored.normalised), number(scored.score), place(scored.rank));
}

function row(name, tone, share, scaled, score, rank) {
  const bar = el("b", {});
  bar.style.width = `${100 * Math.min(1, Math.max(0, share))}%`;
  return el("tr", { "data-tone": tone },
    el("th", { scope: "row" }, name),
    el("td", { class: "track", "aria-hidden": "true" }, el("i", {}, bar)),
    el("td", {}, scaled), el("td", {}, score), el("td", { class: "place" }, rank));
}

// ---------------------------------------------------------------- showing: no answer

async function showCollection(collection) {
  const { settings, counts } = collection;
  const version = collection.versions.find((one) => one.number === collection.active_version);
  const fusion = settings.fusion.method === "convex" ? `convex, ${settings.fusion.alpha} on dense` : `RRF, k ${settings.fusion.k}`;
  const lag = collection.lexical_lag_seconds;
  const facts = {
    Documents: `${count(counts.documents)} in ${count(counts.chunks)} chunks`,
    Waiting: counts.pending ? `${count(counts.pending)} for the embedder` : "none",
    "Set aside": counts.failed ? count(counts.failed) : "none",
    Embedder: `${settings.embedder.model}, version ${collection.active_version}${version ? ` (${version.state})` : ""}`,
    Fingerprint: version ? el("code", {}, version.fingerprint.slice(0, 16)) : "",
    Language: settings.language,
    Fusion: fusion,
    "Lexical index": lag === null ? "being opened" : lag < 1 ? "up to date" : `${Math.round(lag)} s behind`,
  };
  const list = Object.entries(facts).flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, value)]);
  $("answer").replaceChildren(el("section", { class: "empty" }, el("h2", {}, collection.name), el("dl", { class: "card" }, ...list)));
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

function showNoCollections() {
  const example = `azimuth ingest documents.jsonl --collection papers\n\n# or over HTTP\ncurl -X PUT ${location.origin}/v1/collections/papers\n` +
    `curl ${location.origin}/v1/collections/papers/documents \\\n  -H 'Content-Type: application/json' \\\n` +
    `  -d '{"documents": [{"id": "1", "title": "First", "text": "Some text."}]}'`;
  $("answer").replaceChildren(el("section", { class: "empty" }, el("h2", {}, "No collection yet"),
    el("p", { class: "quiet" }, "A collection is a named set of documents. Make the first one:"), el("pre", {}, example)));
}

function showError(error) {
  if (error.status === 401) return askForKey();
  const problem = error.problem;
  const fields = problem?.errors ?? [];
  const ofFilter = fields.filter((one) => one.field === "filter" || one.field.startsWith("filter."));
  if (ofFilter.length) filterError(ofFilter.map((one) => `${one.field}: ${one.message}`).join("; "));
  if (ofFilter.length && ofFilter.length === fields.length) return;
  const title = error.status ? problem.title || "The service refused." : "The service does not answer.";
  const detail = error.status ? error.message : "It may be starting, or the connection is gone.";
  const list = fields.length > 1 && el("ul", {}, ...fields.map((one) => el("li", {}, `${one.field}: ${one.message}`)));
  $("problem").replaceChildren(...[el("strong", {}, title), " ", detail, list,
    problem?.request_id && el("div", { class: "quiet" }, "Request ", el("code", {}, problem.request_id))].filter(Boolean));
  $("problem").hidden = false;
  $("answer").replaceChildren();
}

function askForKey() {
  const refused = sessionStorage.getItem(KEY) !== null;
  sessionStorage.removeItem(KEY);
  askingForKey(true);
  $("key-error").hidden = !refused;
  $("key-error").textContent = "This key is not known.";
  $("answer").replaceChildren();
  $("api-key").focus();
}

// Without a key there is nothing to choose and nothing to ask.
function askingForKey(asking) {
  $("key").hidden = !asking;
  $("search").hidden = asking;
  document.querySelector(".picker").classList.toggle("vacant", asking);
}

function filterError(message) {
  showFilter(true);
  $("filter").setAttribute("aria-invalid", "true");
  $("filter-error").textContent = message;
  $("filter-error").hidden = false;
}

function clearErrors() {
  $("problem").hidden = true;
  $("filter-error").hidden = true;
  $("filter").removeAttribute("aria-invalid");
}

function showCounts() {
  const chosen = collections.find((one) => one.name === $("collection").value);
  const parts = chosen && [
    `${count(chosen.counts.documents)} documents`,
    chosen.counts.pending && `${count(chosen.counts.pending)} waiting`,
    chosen.counts.failed && `${count(chosen.counts.failed)} set aside`,
  ];
  $("counts").textContent = parts ? parts.filter(Boolean).join(" · ") : "";
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
  $("filter").value = JSON.stringify({ ...filter, [name]: value });
  showFilter(true);
  search();
}

// ---------------------------------------------------------------- small things

function el(tag, attributes, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) if (value !== "") node.setAttribute(name, value);
  node.append(...children.filter((child) => child !== null && child !== false && child !== undefined));
  return node;
}

const note = (title, text) => el("p", { class: "note" }, el("strong", {}, title), " ", text);

// Escaped HTML with <mark> as nodes. A textarea decodes character references and runs nothing.
function marked(html) {
  const decoder = document.createElement("textarea");
  const decode = (part) => ((decoder.innerHTML = part), decoder.value);
  return html.split(/(<mark>.*?<\/mark>)/s).map((part) =>
    part.startsWith("<mark>") ? el("mark", {}, decode(part.slice(6, -7))) : decode(part));
}

// A highlight with an ellipsis on each side where the passage goes on in words.
function excerpt(html, passage) {
  const parts = marked(html);
  const plain = parts.map((part) => part.textContent ?? part).join("");
  const at = passage.indexOf(plain);
  const words = (text) => at < 0 || /[\p{L}\p{N}]/u.test(text);
  const before = words(passage.slice(0, at)) ? "… " : "";
  return [before, ...parts, words(passage.slice(at + plain.length)) ? " …" : ""];
}

const shorten = (text, length) => (text.length > length ? `${text.slice(0, length).trimEnd()}…` : text);
const count = (value) => value.toLocaleString("en");
const place = (rank) => (rank === null ? "–" : `#${rank}`);
const percent = (share) => `${(100 * share).toLocaleString("en", { maximumSignificantDigits: 2 })} %`;
const ms = (value) => `${value < 10 ? value.toFixed(1) : Math.round(value)} ms`;
const number = (value) => (Math.abs(value) >= 10 ? value.toFixed(1) : Math.abs(value) >= 0.1 ? value.toFixed(3) : value.toFixed(4));

// ---------------------------------------------------------------- events

$("search").addEventListener("submit", (event) => (event.preventDefault(), search()));
for (const id of ["rerank", "k", "collection"]) $(id).addEventListener("change", () => (showCounts(), search()));
document.querySelectorAll("input[name=mode]").forEach((radio) => radio.addEventListener("change", () => search()));
$("filter-toggle").addEventListener("click", () => {
  showFilter($("filter-box").hidden);
  if (!$("filter-box").hidden) $("filter").focus();
});
$("filter").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) search();
});
$("key").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem(KEY, $("api-key").value);
  $("api-key").value = "";
  start();
});
addEventListener("popstate", () => (fromUrl(), showCounts(), search({ remember: false })));
addEventListener("keydown", (event) => {
  if (event.target.closest("input, textarea, select") || event.ctrlKey || event.metaKey || event.altKey) return;
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

start();
