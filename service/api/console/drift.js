// Drift: whether what is asked now is what was asked before, and what the collection is about.

import { call, collectionPath } from "./api.js";
import { lines } from "./chart.js";
import { count, el, grid, moment, share, verdict } from "./dom.js";
import { nothing, reading, section } from "./reading.js";

const CHARTS = {
  out_of_domain: ["Out of the domain", "share of queries that are more likely foreign"],
  unknown_words: ["Unknown words", "share of their words that no document has"],
  centroid_shift: ["Centroid shift", "against earlier queries, in their own spread"],
  mmd: ["Maximum mean discrepancy", "against earlier queries"],
  top_score: ["Top score", "largest difference of the distributions of best cosines"],
  corpus_distance: ["Distance from the collection", "MMD of queries and chunks; without verdict"],
  best_cosine: ["Best cosine", "median over the latest queries"],
};
const SHARES = new Set(["out_of_domain", "unknown_words"]);
const format = (name) => (value) => (SHARES.has(name) ? share(value) : Number(value.toPrecision(3)).toLocaleString("en", { maximumFractionDigits: 4 }));

const view = reading({
  view: "drift", title: "Drift", seconds: 30,
  async load(name) {
    const found = await call(`${collectionPath(name)}/drift`);
    if (!found.measures.length && !found.history.length) {
      return [nothing("Not measured yet", "Live queries are compared with earlier ones and with the collection. Figures appear once the process that answers here has answered fifty.",
        `So far it has answered ${count(found.seen_queries)}.`)];
    }
    return [head(found), figures(found), section("Over time", ...charts(found.history))];
  },
});

export const { open, choose, goBack } = view;

const WORDS = { healthy: "as it should be", watch: "changing", broken: "not what is in here" };

const head = (found) => el("section", { class: "summary", "aria-label": "Drift as a whole" }, el("div", { class: "facts" },
  el("span", { class: "lead" }, "What is asked is ", verdict(found.verdict ?? "unknown", WORDS[found.verdict] ?? "not judged yet")),
  el("span", {}, "the latest ", el("b", {}, count(found.queries)), " queries, beside ", el("b", {}, count(found.reference_queries)), " earlier ones"),
  el("span", {}, "version ", el("b", {}, found.version)),
  found.measured_at && el("span", {}, moment(found.measured_at))));

const figures = (found) => section("Figures", grid("Measures of drift", ["Measure", "Against", "Verdict", "Value", "95 % interval", "What it says"],
  found.measures.map((one) => {
    const told = format(one.name);
    return [
      CHARTS[one.name]?.[0] ?? one.name.replaceAll("_", " "),
      el("span", { class: "when" }, { collection: "the collection", earlier: "earlier queries" }[one.against]),
      verdict(one.verdict ?? "unknown", one.verdict ?? (one.value === null ? "not measured" : "for information")),
      one.value === null ? "–" : told(one.value),
      one.low === null || one.low === undefined ? "–" : `${told(one.low)} to ${told(one.high)}`,
      el("span", { class: "words" }, one.says, one.do && el("span", { class: "todo" }, el("b", {}, "Do: "), one.do)),
    ];
  })));

function charts(history) {
  const drawn = Object.entries(CHARTS).map(([name, [title, unit]]) => {
    const points = history.map((one) => ({ x: Date.parse(one.minute), y: one[name] ?? null }));
    if (!points.some((point) => point.y !== null)) return null;
    return lines({ title, unit, time: true, height: 180, series: [{ name: title.toLowerCase(), points }], y: { low: 0, format: format(name) } });
  }).filter(Boolean);
  return drawn.length ? [el("div", { class: "pair" }, ...drawn)] : [el("p", { class: "quiet" }, "Nothing was measured over time yet.")];
}
