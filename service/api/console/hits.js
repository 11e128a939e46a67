// The hits of an answer, each with the scores of its stages.
// Of the highlights' HTML only <mark> is understood; all else goes in as text.

import { thumbnail } from "./api.js";
import { $, count, el, number, percent, shorten } from "./dom.js";

const place = (rank) => (rank === null ? "–" : `#${rank}`);

// `choose(name, value)` is called where a value of the metadata is clicked.
export function hitList(hits, plan, collection, choose) {
  const best = Math.max(...hits.map((hit) => hit.explain.fusion)) || 1;
  return el("ol", { class: "hits" }, ...hits.map((hit, at) => el("li", {}, hitRow(hit, at, plan, best, collection, choose))));
}

function hitRow(hit, at, plan, best, collection, choose) {
  const address = `?${new URLSearchParams({ view: "documents", collection, id: hit.id })}`;
  const text = hit.text ?? "";
  const snippets = hit.highlights?.length ? hit.highlights.map((html) => excerpt(html, text)) : [[shorten(text, 220)]];
  const passage = el("details", {},
    el("summary", {}, `Passage ${hit.chunk + 1}, characters ${count(hit.start)} to ${count(hit.end)}`),
    el("div", { class: "passage" }, text));
  const body = el("div", {},
    el("h2", {}, el("a", { href: address }, ...(hit.title_highlight ? marked(hit.title_highlight) : [hit.title || hit.id]))),
    hit.title !== hit.id && el("div", { class: "id" }, hit.id),
    thumbnail($("collection").value, hit),
    ...snippets.map((parts) => el("p", { class: "snippet" }, ...parts)),
    chips(hit.metadata ?? {}, choose),
    passage);
  return el("article", { class: "hit", tabindex: "-1", "aria-label": `${at + 1}: ${hit.title || hit.id}` },
    el("div", { class: "rank", "aria-hidden": "true" }, at + 1), body, scores(hit, at, plan, best));
}

function chips(metadata, choose) {
  const all = Object.entries(metadata).filter(([name]) => name !== "ingested").map(([name, value]) => {
    const text = typeof value === "string" ? value : JSON.stringify(value);
    const parts = [el("span", {}, `${name} `), shorten(text, 60)];
    if (value !== null && typeof value === "object") return el("span", { class: "chip", title: text }, ...parts);
    const button = el("button", { type: "button", class: "chip", title: `Only where ${name} is ${text}` }, ...parts);
    button.addEventListener("click", () => choose(name, value));
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
    el("thead", {}, el("tr", {}, total(number(hit.score), "relative score", "It orders the hits of this answer, and is no probability."), ...heads)),
    el("tbody", {}, ...[...rows, relevance(hit, plan)].filter(Boolean)));
}

const total = (figure, name, title) => el("td", { class: "total", colspan: "2", title }, el("b", {}, figure), name);

function relevance(hit, plan) {
  if (!plan.rerank) return false;
  const known = hit.relevance !== null;
  const title = known ? "The probability that this hit answers the query." : "No calibrated reranker read this hit with the whole query.";
  return el("tr", { class: "relevance" }, total(known ? percent(hit.relevance) : "–", "relevance", title));
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
