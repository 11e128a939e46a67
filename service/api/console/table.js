// The table of versions: what each is, how far it is, and, unfolded, the evidence.

import { button, card, count, duration, el, moment, shorten } from "./dom.js";
import { evidence } from "./evidence.js";

// The states that pass by themselves. In every other one a version rests until somebody decides.
export const PASSING = { backfilling: "encoding documents", indexing: "building the index", verifying: "gathering evidence" };
const UNITS = { backfilling: "documents", indexing: "chunks" };
const HEADS = ["Version", "State", "Embedder", "Dimensions", "Storage", "Chunks", "Registered"];

// `parts`: which version is unfolded, which figures are opened, how to toggle, and what may be done with a version.
export function table(versions, parts) {
  const newest = [...versions].sort((a, b) => b.number - a.number);
  return el("div", { class: "scroller", tabindex: "0", role: "region", "aria-label": "Table of versions" },
    el("table", { class: "grid" },
      el("thead", {}, el("tr", {}, ...HEADS.map((head) => el("th", { scope: "col" }, head)))),
      ...newest.map((one) => el("tbody", { class: one.state }, row(one, parts), parts.unfolded === one.number && unfoldedRow(one, parts)))));
}

function row(one, { unfolded, toggle }) {
  const open = unfolded === one.number;
  const gone = one.state === "retired";
  const handle = button(one.number, () => toggle(one.number), {
    class: "toggle", "aria-expanded": String(open), "aria-label": `Version ${one.number}: details`, "data-key": `row ${one.number}`,
  });
  return el("tr", {},
    el("th", { scope: "row" }, handle),
    el("td", {}, state(one)),
    el("td", { class: "model" }, shorten(one.embedder.model, 60), ...said(one.embedder)),
    el("td", {}, one.dimensions),
    el("td", {}, one.index.storage),
    el("td", { class: "chunks" }, gone ? "" : count(one.chunks), !gone && el("span", { class: "quiet" }, one.indexed ? "HNSW" : "exact scan")),
    el("td", { class: "date" }, moment(one.created_at)));
}

const said = (embedder) => [
  embedder.identity, embedder.revision,
  embedder.query_prompt && `queries: “${shorten(embedder.query_prompt, 40)}”`,
  embedder.document_prompt && `passages: “${shorten(embedder.document_prompt, 40)}”`,
].filter(Boolean).map((words) => el("span", { class: "quiet" }, words));

function state(one) {
  const { progress } = one;
  const underway = one.state in PASSING;
  const counted = one.state in UNITS && progress.total > 0;
  return el("div", { class: "state" },
    el("span", { class: "pill" }, one.state),
    one.paused && el("span", { class: "pill rests" }, "paused"),
    underway && el("progress", {
      "aria-label": `Version ${one.number}: ${PASSING[one.state]}`,
      ...(counted && { value: Math.min(progress.done, progress.total), max: progress.total }),
    }),
    underway && el("span", { class: "quiet" }, counted ? told(one) : PASSING[one.state]),
    one.reason && el("span", { class: "reason" }, one.reason));
}

function told({ state: phase, paused, progress }) {
  const rate = progress.per_second;
  return [
    `${count(progress.done)} of ${count(progress.total)} ${UNITS[phase]}`,
    progress.failed && `${count(progress.failed)} set aside`,
    !paused && rate !== null && `${rate >= 10 ? count(Math.round(rate)) : rate.toFixed(1)}/s`,
    !paused && progress.eta_seconds !== null && `${duration(progress.eta_seconds)} left`,
  ].filter(Boolean).join(" · ");
}

function unfoldedRow(one, { opened, actions }) {
  const { chunking, index } = one;
  const facts = {
    Fingerprint: el("code", {}, one.fingerprint),
    Passages: `${chunking.max_tokens ?? one.max_tokens} tokens, ${chunking.overlap_tokens} shared with the next`,
    Index: `m ${index.m}, ef_construction ${index.ef_construction}`,
  };
  const checks = one.checks.length
    ? [el("h3", {}, "Evidence", one.gathered_at && el("span", { class: "quiet" }, " of ", moment(one.gathered_at))),
      evidence(one.checks, `version ${one.number}`, opened)]
    : [el("p", { class: "quiet" }, one.active ? "It was active from the start: there was nothing to compare it with."
      : one.state === "retired" ? "Its vectors were dropped." : "Evidence is gathered once it is complete and indexed.")];
  return el("tr", { class: "unfolded" }, el("td", { colspan: HEADS.length },
    card(facts), ...checks, el("div", { class: "actions" }, ...actions(one))));
}
