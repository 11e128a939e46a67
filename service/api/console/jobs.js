// Everything long of all collections: how far it is, and what became of it.

import { call } from "./api.js";
import { count, duration, el, grid, moment, verdict } from "./dom.js";
import { nothing, reading, section } from "./reading.js";

const VERDICTS = { failed: "broken", done: "healthy", paused: "watch" };

const view = reading({
  view: "jobs", title: "Jobs", seconds: 3,
  async load() {
    const { jobs } = await call("v1/jobs");
    if (!jobs.length) return [nothing("Nothing is under way", "Encoding, re-indexing, builds of indexes and calibrations are listed here while they run.")];
    return [section("Jobs", grid("Jobs", ["Job", "Kind", "State", "Progress", "Started"], jobs.map(row)))];
  },
});

export const { open, choose, goBack } = view;

function row({ id, kind, collection, state, phase, progress, started, error }) {
  const left = progress?.eta_seconds ? `, ${duration(progress.eta_seconds)} left` : "";
  return [
    id,
    el("a", { href: `?view=versions&collection=${encodeURIComponent(collection)}` }, `${kind} of ${collection}`),
    el("span", {}, verdict(VERDICTS[state] ?? "unknown", phase ? `${state}, ${phase}` : state), error && el("span", { class: "quiet" }, error)),
    progress ? `${count(progress.done)} of ${count(progress.total)}${left}` : "–",
    el("span", { class: "when" }, started ? moment(started) : "–"),
  ];
}
