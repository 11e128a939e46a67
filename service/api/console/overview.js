// All collections on one page: is search still right, fast and up to date? What needs somebody stands on top.

import { call, readMetrics } from "./api.js";
import { count, el, grid, share, verdict } from "./dom.js";
import { histogram, matching, parse, quantile, sum } from "./exposition.js";
import { toldQuantile } from "./latency.js";
import { reading, section } from "./reading.js";

const LAG = 60;
const CANARY = 0.999;
const SLOW = 0.5;

const view = reading({
  view: "overview", title: "Overview", seconds: 10,
  async load() {
    const [{ collections }, text] = await Promise.all([call("v1/collections"), readMetrics()]);
    const samples = parse(text);
    const found = collections.map((one) => looked(one, samples));
    const wrong = found.flatMap((one) => one.wrong);
    return [
      el("section", { class: "summary", "aria-label": "What needs somebody" },
        el("p", { class: "lead" }, wrong.length
          ? verdict(wrong.some((one) => one.bad) ? "broken" : "watch", `${wrong.length === 1 ? "One thing needs" : `${wrong.length} things need`} a look`)
          : verdict("healthy", "Nothing that is measured is wrong")),
        wrong.length > 0 && el("ul", { class: "advice" }, ...wrong.map((one) => el("li", {},
          verdict(one.bad ? "broken" : "watch", one.collection), one.says, " ", el("a", { href: link(one.view, one.collection) }, "Look"))))),
      section("Collections", grid("Collections", ["Collection", "Documents", "Recall@10", "Latency p95", "Geometry", "Drift", "Index", "Fresh"], found.map(row))),
      el("p", { class: "quiet" }, "Recall, latency and drift are those that the answering process counted since it was started, geometry and index those that were last looked at. What each figure means and what to do: docs/operating.md."),
    ];
  },
});

export const { open, choose, goBack } = view;

const link = (page, name) => `?${page === "search" ? "" : `view=${page}&`}collection=${encodeURIComponent(name)}`;

// What is known of one collection, and what is wrong with it.
function looked(one, samples) {
  const collection = one.name;
  const active = { collection, version: String(one.active_version) };
  const gauge = (name, labels, choose) => {
    const values = matching(samples, name, labels).map((sample) => sample.value);
    return values.length ? choose(...values) : null;
  };
  const latencies = histogram(samples, "azimuth_search_seconds", { collection });
  const facts = {
    recall: gauge("azimuth_recall_at_k", active, Math.min),
    target: gauge("azimuth_recall_target", { collection }, Math.max) ?? one.settings.recall_target,
    missed: gauge("azimuth_recall_target_missed", active, Math.max) === 1,
    samples: sum(matching(samples, "azimuth_recall_samples_total", active)),
    p95: quantile(latencies, 0.95),
    told: toldQuantile(latencies, 0.95),
    geometry: gauge("azimuth_geometry_verdict", active, Math.max),
    drift: gauge("azimuth_drift_verdict", { collection }, Math.max),
    dead: gauge("azimuth_dead_rows", active, Math.max),
    canary: gauge("azimuth_canary_cosine", active, Math.min),
    lag: one.lexical_lag_seconds,
  };
  const wrong = [];
  const say = (bad, page, says) => wrong.push({ collection, bad, view: page, says });
  if (facts.missed) say(true, "recall", "the recall target is missed even where the index looks furthest.");
  else if (facts.recall !== null && facts.samples >= 30 && facts.recall < facts.target) say(false, "recall", `recall is ${share(facts.recall)}, the target ${share(facts.target, 0)}.`);
  if (facts.canary !== null && facts.canary < CANARY) say(true, "versions", "the model no longer gives the vectors that it was registered with.");
  if (facts.geometry) say(facts.geometry === 2, "geometry", facts.geometry === 2 ? "the vectors lie as only those of a broken embedder do." : "something about the vectors is out of the ordinary.");
  if (facts.drift) say(false, "drift", "what is asked is not what it holds, or not what was asked before.");
  if (one.counts.failed) say(false, "versions", `${count(one.counts.failed)} documents were set aside.`);
  if (facts.lag !== null && facts.lag > LAG) say(false, "search", `lexical search is ${Math.round(facts.lag)} s behind.`);
  if (facts.p95 !== null && facts.p95 > SLOW) say(false, "recall", `searches are slow: p95 ${facts.told}.`);
  return { one, facts, wrong };
}

const VERDICTS = ["healthy", "watch", "broken"];
const unknown = (words = "not yet") => verdict("unknown", words);

function row({ one, facts }) {
  const version = one.versions.find((other) => other.number === one.active_version);
  const to = (page, content) => el("a", { href: link(page, one.name), class: "cell" }, content);
  const whole = (version?.chunks ?? one.counts.chunks) + (facts.dead ?? 0);
  return [
    el("a", { href: link("search", one.name) }, one.name),
    el("span", {}, count(one.counts.documents), one.counts.pending > 0 && el("span", { class: "quiet" }, `${count(one.counts.pending)} waiting`)),
    to("recall", facts.recall === null ? unknown() : verdict(facts.missed ? "missed" : facts.recall >= facts.target ? "held" : "watch", `${share(facts.recall)} of ${share(facts.target, 0)}`)),
    to("recall", facts.p95 === null ? unknown() : verdict(facts.p95 > SLOW ? "watch" : "healthy", facts.told)),
    to("geometry", facts.geometry === null ? unknown() : verdict(VERDICTS[facts.geometry])),
    to("drift", facts.drift === null ? unknown() : verdict(VERDICTS[facts.drift])),
    to("index", facts.dead === null ? (version?.indexed ? unknown("HNSW") : verdict("healthy", "exact")) : verdict(facts.dead / whole > 0.1 ? "watch" : "healthy", facts.dead ? `${share(facts.dead / (whole || 1), 0)} dead` : "whole")),
    facts.lag === null ? unknown("opening") : verdict(facts.lag > LAG ? "watch" : "healthy", facts.lag < 1 ? "up to date" : `${Math.round(facts.lag)} s behind`),
  ];
}
