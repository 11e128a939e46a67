// Recall and latency of a collection: what searches find of what there is to be found, what was promised, and at what cost.

import { call, collectionPath, readMetrics } from "./api.js";
import { lines } from "./chart.js";
import { card, count, el, grid, moment, ms, note, share, verdict } from "./dom.js";
import { parse } from "./exposition.js";
import { latencyChart, latencyTable, noticed } from "./latency.js";
import { reading, section } from "./reading.js";

const HOURS = [[1, "1 hour"], [6, "6 hours"], [24, "1 day"], [168, "7 days"]];
const BANDS = { all: "no filter", wide: "10 % and more pass", medium: "1 to 10 % pass", narrow: "below 1 % pass" };
const GAP = 3;
let hours = 24;

const view = reading({
  view: "recall", title: "Recall and latency", seconds: 10,
  async load(name, collections, again) {
    const [found, text] = await Promise.all([call(`${collectionPath(name)}/recall?hours=${hours}`), readMetrics()]);
    const samples = parse(text);
    const active = found.versions.find((one) => one.active) ?? found.versions[0];
    const chart = latencyChart(noticed(samples, name));
    return [
      head(found, active, again),
      ...efforts(found, active),
      section("Over time", ...overTime(found)),
      section("Calibration", ...calibration(found, active)),
      section("Latency", chart ?? el("p", { class: "quiet" }, "A chart of live searches appears here as soon as some are made while this page is open."),
        latencyTable(samples, name)),
    ];
  },
});

export const { open, choose, goBack } = view;

// ---------------------------------------------------------------- what holds

const where = (one) => [one.leg === "lexical" ? "lexical leg" : one.plan, one.leg !== "lexical" && BANDS[one.band], one.ef_search > 0 && `ef_search ${one.ef_search}`].filter(Boolean).join(", ");

// Of few searches less than the target is no news: the interval tells.
const judged = (one, target) => (one.recall >= target ? "held" : one.high < target ? "watch" : "unknown");

function head(found, active, again) {
  const dense = active?.series.filter((one) => one.leg === "dense") ?? [];
  const queries = dense.reduce((sum, one) => sum + one.queries, 0);
  const mean = dense.reduce((sum, one) => sum + one.queries * one.recall, 0) / queries;
  const below = dense.filter((one) => judged(one, found.target) === "watch");
  const missed = active?.efforts.some((one) => one.missed);
  const period = el("select", { id: "hours", "data-key": "hours" }, ...HOURS.map(([value, words]) => el("option", { value, ...(value === hours && { selected: "selected" }) }, words)));
  period.addEventListener("change", () => ((hours = Number(period.value)), again()));
  return el("section", { class: "summary", "aria-label": "Recall as a whole" },
    el("div", { class: "facts" },
      el("span", { class: "lead" }, "Recall@", found.k, " ", el("b", {}, queries ? share(mean) : "not measured yet")),
      el("span", {}, "target ", el("b", {}, share(found.target, 0))),
      queries > 0 && (missed ? verdict("missed", "missed: no setting holds it") : below.length ? verdict("watch", "below it in places") : verdict("held")),
      active && el("span", {}, "version ", el("b", {}, active.version)),
      el("label", { class: "period", for: "hours" }, "Looking back ", period)),
    queries ? el("p", { class: "quiet" }, `Of ${count(queries)} searches that were run again exactly.`, below.length > 0 && ` Less than the target: ${below.map(where).join("; ")}.`)
      : note("Not measured yet.", "A share of live searches is run again exactly, off the hot path. Search this collection, and figures appear here within a minute or two."));
}

function efforts(found, active) {
  const parts = [];
  if (active?.series.length) {
    parts.push(section("By plan and filter", grid("Recall by plan and filter", ["Leg and plan", "Filter", "ef_search", "Searches", `Recall@${found.k}`, "95 % interval", "By distance"],
      active.series.map((one) => [
        one.leg === "lexical" ? "lexical" : one.plan, one.leg === "lexical" ? "–" : BANDS[one.band] ?? one.band, one.ef_search || "–", count(one.queries),
        verdict(one.leg === "lexical" ? "unknown" : judged(one, found.target), share(one.recall)), `${share(one.low)} to ${share(one.high)}`, share(one.distance_recall),
      ])),
    el("p", { class: "quiet" }, "By distance: what is as near as the true tenth counts as found, whichever it is. Where it is high and recall is not, only near ties differ.")));
  }
  if (active?.efforts.length) {
    parts.push(section("How far the index looks", grid("Efforts that the controller chose", ["Filter", "ef_search", "Target", "Why", "Since"],
      active.efforts.map((one) => [BANDS[one.band] ?? one.band, one.ef_search, verdict(one.missed ? "missed" : "held"), el("span", { class: "words" }, one.reason), el("span", { class: "when" }, moment(one.changed_at))]))));
  }
  return parts;
}

// ---------------------------------------------------------------- over time

function overTime(found) {
  const series = new Map();
  for (const { version, history } of found.versions) {
    for (const one of history) {
      const name = [found.versions.length > 1 && `version ${version}`, one.leg === "lexical" ? "lexical" : `${one.plan}, ${BANDS[one.band]}`].filter(Boolean).join(": ");
      if (!series.has(name)) series.set(name, new Map());
      const moments = series.get(name);
      const at = Date.parse(one.minute);
      const before = moments.get(at) ?? { queries: 0, found: 0 };
      moments.set(at, { queries: before.queries + one.queries, found: before.found + one.queries * one.recall });
    }
  }
  if (!series.size) return [el("p", { class: "quiet" }, "Nothing was measured in this time.")];
  const step = Math.max(60_000, (hours * 3_600_000) / 288);
  return [lines({
    title: `Recall@${found.k} of live searches`, unit: "share of the true nearest that were found", time: true,
    series: [...series].map(([name, moments]) => ({ name, points: gapped([...moments].sort((a, b) => a[0] - b[0]), step) })),
    marks: [{ y: found.target, name: `target ${share(found.target, 0)}` }],
    y: { high: 1, format: (value) => share(value) },
  })];
}

// A line does not lead over times in which nothing was measured.
function gapped(moments, step) {
  const points = [];
  let last = null;
  for (const [at, { queries, found }] of moments) {
    if (last !== null && at - last > GAP * step) points.push({ x: (at + last) / 2, y: null });
    points.push({ x: at, y: found / queries });
    last = at;
  }
  return points;
}

// ---------------------------------------------------------------- calibration

function calibration(found, active) {
  const curve = active?.curve;
  if (!curve?.points.length) {
    return [el("p", { class: "quiet" }, "No curve: the index of this version was not calibrated yet, or it has none because it is scanned exactly, which loses nothing.")];
  }
  const chosen = active.efforts.find((one) => one.band === "all")?.ef_search;
  return [
    el("div", { class: "pair" },
      lines({
        title: "Recall by ef_search", unit: "with its 95 % interval", log: true, xLabel: "ef_search",
        series: [{ name: `recall@${found.k}`, points: curve.points.map((one) => ({ x: one.ef_search, y: one.recall, low: one.low, high: one.high })) }],
        marks: [{ y: found.target, name: `target ${share(found.target, 0)}` }], y: { high: 1, format: (value) => share(value) },
      }),
      lines({
        title: "Time by ef_search", unit: "milliseconds of the scan", log: true, xLabel: "ef_search",
        series: [{ name: "scan", points: curve.points.map((one) => ({ x: one.ef_search, y: one.milliseconds })) }],
        marks: [{ y: curve.exact_milliseconds, name: `exact scan ${ms(curve.exact_milliseconds)}` }], y: { low: 0, format: ms },
      })),
    card({
      Measured: el("span", {}, moment(curve.measured_at), `, ${count(curve.queries)} queries over ${count(curve.rows)} chunks`),
      Chosen: chosen ? `ef_search ${chosen}` : "not yet",
      "Exact scan": `${ms(curve.exact_milliseconds)}: what looking at everything takes`,
    }),
  ];
}
