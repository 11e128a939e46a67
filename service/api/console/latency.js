// Latency over time: what /metrics has counted, looked at every few seconds and kept until the tab is closed. The
// service keeps no series of it; for days and weeks there is Prometheus.

import { lines } from "./chart.js";
import { count, grid, ms } from "./dom.js";
import { between, beyondBounds, histogram, quantile } from "./exposition.js";

const KEY = "azimuth-latency";
const KEPT = 240;
const SMOOTH = 3;
const QUANTILES = [["p50", 0.5], ["p95", 0.95], ["p99", 0.99]];
const STAGES = ["filter", "embed", "dense", "lexical", "fuse", "fetch", "passages", "rerank", "confidence", "highlight"];

function remembered() {
  try {
    return JSON.parse(sessionStorage.getItem(KEY)) ?? {};
  } catch {
    return {};
  }
}

// Adds what was counted until now; answers all looks at this collection, oldest first. Infinity is no JSON: a bound's place
// in the list says which it is.
export function noticed(samples, collection, now = Date.now()) {
  const all = remembered();
  const buckets = histogram(samples, "azimuth_search_seconds", { collection });
  const looks = all[collection] ?? [];
  const last = looks.at(-1);
  // Counters that fell are those of another process, or of one that was started again.
  const kept = last && buckets.some(([, one], at) => one < (last.counts[at] ?? 0)) ? [] : looks;
  if (!last || now - last.at >= 2_000) kept.push({ at: now, counts: buckets.map(([, one]) => one) });
  all[collection] = kept.slice(-KEPT);
  sessionStorage.setItem(KEY, JSON.stringify(all));
  return { bounds: buckets.map(([bound]) => bound), looks: all[collection] };
}

export function latencyChart({ bounds, looks }) {
  const named = (counts) => bounds.map((bound, at) => [bound, counts[at] ?? 0]);
  const steps = looks.slice(1).map((look, at) => ({ at: look.at, buckets: between(named(looks[Math.max(0, at + 1 - SMOOTH)].counts), named(look.counts)) }));
  if (!steps.some(({ buckets }) => buckets.at(-1)?.[1] > 0)) return null;
  return lines({
    title: "Latency of searches, live", unit: "milliseconds",
    about: "Of the process that answers this page, since the page was opened. Gaps: nothing was searched.",
    time: true, y: { low: 0, format: (value) => ms(value) },
    series: QUANTILES.map(([name, part]) => ({
      name, points: steps.map(({ at, buckets }) => ({ x: at, y: inMilliseconds(quantile(buckets, part)) })),
    })),
  });
}

const inMilliseconds = (seconds) => (seconds === null ? null : 1_000 * seconds);

// Since the process was started: the whole search, then its stages.
export function latencyTable(samples, collection) {
  const row = (name, buckets) => [name, count(buckets.at(-1)?.[1] ?? 0), ...QUANTILES.map(([, part]) => toldQuantile(buckets, part))];
  const stages = STAGES.map((stage) => [stage, histogram(samples, "azimuth_search_stage_seconds", { collection, stage })]);
  return grid("Latency since the process was started", ["Stage", "Searches", "p50", "p95", "p99"], [
    row("whole search", histogram(samples, "azimuth_search_seconds", { collection })),
    ...stages.filter(([, buckets]) => buckets.at(-1)?.[1] > 0).map(([stage, buckets]) => row(stage, buckets)),
  ]);
}

export function toldQuantile(buckets, part) {
  const seconds = quantile(buckets, part);
  return seconds === null ? "–" : (beyondBounds(buckets, part) ? "over " : "") + ms(1_000 * seconds);
}
