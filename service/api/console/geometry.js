// The shape of a version's space: figures with what they mean, how cosines and hubs are spread, and a map of a sample.

import { call, collectionPath, post } from "./api.js";
import { bars, map } from "./chart.js";
import { button, count, el, grid, note, share, shorten, verdict } from "./dom.js";
import { nothing, reading, section } from "./reading.js";

const PICKED = 10;
const GROUPS = 6;  // as many as markers can be told apart
const TITLES = {
  meaning: "Meaning", words: "Words", mean_cosine: "Mean cosine", first_direction: "First direction", ten_directions: "Ten directions",
  effective_rank: "Effective rank", participation_ratio: "Participation ratio", intrinsic_dimension: "Intrinsic dimension",
  hubness: "Hubness", antihubs: "Anti-hubs", centring: "Centring", duplicates: "Duplicates", near_duplicates: "Near duplicates", norms: "Norms",
};
let wanted = null;
let asked = "";

const view = reading({
  view: "geometry", title: "Geometry",
  async load(name, collections, again) {
    const known = collections.find((one) => one.name === name);
    const version = known?.versions.some((one) => one.number === wanted) ? wanted : null;
    const found = await call(`${collectionPath(name)}/geometry${version === null ? "" : `?version=${version}`}`);
    const active = known?.versions.some((one) => one.number === found.version && one.state === "active");
    return [head(found, known, again), ...(found.measures.length ? [figures(found)] : []), ...pictures(found, name, active)];
  },
});

export const { open, choose, goBack } = view;

function head(found, known, again) {
  const standing = known.versions.filter((one) => !["retired", "failed"].includes(one.state));
  const picker = el("select", { id: "version", "data-key": "version" },
    ...standing.map((one) => el("option", { value: one.number, ...(one.number === found.version && { selected: "selected" }) }, `${one.number} (${one.state})`)));
  picker.addEventListener("change", () => ((wanted = Number(picker.value)), document.body.classList.add("busy"), again()));
  return el("section", { class: "summary", "aria-label": "Geometry as a whole" },
    el("div", { class: "facts" },
      el("span", { class: "lead" }, "The space is ", verdict(found.verdict ?? "unknown", found.verdict ?? "not judged yet")),
      el("span", {}, count(found.sample), " of ", count(found.rows), " chunks looked at"),
      found.before && el("span", {}, "beside version ", el("b", {}, found.before.version)),
      el("label", { class: "period", for: "version" }, "Version ", picker)),
    !found.verdict && note("No verdict.", found.reason ?? "Too few chunks to tell."));
}

// ---------------------------------------------------------------- figures

const told = (value) => (value === null || value === undefined ? "–" : Number(value.toPrecision(3)).toLocaleString("en", { maximumFractionDigits: 4 }));

function figures(found) {
  const order = { broken: 0, watch: 1, healthy: 2 };
  const measures = [...found.measures].sort((a, b) => (order[a.verdict] ?? 3) - (order[b.verdict] ?? 3));
  const before = new Map(found.before?.measures.map((one) => [one.name, one]));
  return section("Figures", grid("Measures of the space", ["Measure", "Verdict", "Value", ...(found.before ? [`Version ${found.before.version}`] : []), "Watch", "Broken", "What it says"],
    measures.map((one) => [
      TITLES[one.name] ?? one.name,
      verdict(one.verdict ?? "unknown", one.verdict ?? "not measured"),
      el("span", { class: "value" }, told(one.value), one.error !== null && one.value !== null && el("span", { class: "quiet" }, `± ${told(one.error)}`)),
      ...(found.before ? [told(before.get(one.name)?.value)] : []),
      told(one.watch), told(one.broken),
      el("span", { class: "words" }, one.says, one.do && el("span", { class: "todo" }, el("b", {}, "Do: "), one.do)),
    ])));
}

// ---------------------------------------------------------------- pictures

function pictures(found, name, active) {
  if (!found.cosines) return [nothing("No pictures yet", found.reason ?? "Write some documents first.")];
  const mean = found.measures.find((one) => one.name === "mean_cosine");
  return [
    section("Spread", el("div", { class: "pair" },
      bars({
        title: "Cosine of random pairs", unit: "share of pairs", xLabel: "cosine", ...found.cosines,
        about: "A sound space spreads around a low mean. All near 1: it has collapsed.",
        marks: mean?.value === null || !mean ? [] : [{ x: mean.value, name: `mean ${told(mean.value)}` }],
      }),
      bars({
        title: "Among the ten nearest of how many others", unit: "share of chunks", xLabel: "occurrences", ...evened(found.occurrences),
        about: `Hubs lie far to the right: they are near to everything. ${share(found.antihubs)} are near to nothing.`,
      })),
    found.hubs.length > 0 && el("details", { class: "figures", "data-key": "hubs" }, el("summary", {}, "The largest hubs"),
      grid("The largest hubs", ["Document", "Passage", "Title", "Occurrences"],
        found.hubs.map((hub) => [hub.id, hub.chunk + 1, shorten(hub.title || "", 80), count(hub.occurrences)])))),
    found.map && section("Map", ...mapped(found, name, active)),
  ];
}

// Bins grow, as hubs lie far out; they are drawn equally wide.
const evened = ({ edges, counts }) => ({
  counts, edges: edges.map((_, at) => at),
  bins: counts.map((_, at) => (edges[at + 1] - edges[at] === 1 ? String(edges[at]) : `${edges[at]}–${edges[at + 1] - 1}`)),
});

function mapped(found, name, active) {
  const place = el("div", { id: "map" });
  const over = el("p", { class: "quiet over", "aria-hidden": "true" });
  const says = el("p", { class: "quiet", role: "status" });
  const query = el("input", { id: "map-query", type: "search", maxlength: "1000", value: asked, "data-key": "map query", placeholder: "A query whose hits are to stand out" });
  const form = el("form", { class: "line", role: "search", "aria-label": "On the map" },
    el("label", { for: "map-query", class: "unseen" }, "Query whose hits are to stand out"), query, el("button", { type: "submit" }, "Show the hits"));
  let [groups, picked] = [[], []];
  const points = found.map.points.map((point) => ({ ...point, name: `${point.id}, passage ${point.chunk + 1}` }));
  const draw = () => place.replaceChildren(map({
    title: "Chunks on the two strongest directions", picked, points, groups,
    unit: `${count(points.length)} of them`,
    about: `The plane keeps ${share(found.map.shown.reduce((sum, one) => sum + one, 0))} of how the vectors vary, so what lies together here need not be near; numbers are the hits of the search, best first.`,
    told: (point) => (over.textContent = point ? [point.name, groups[point.group]].filter(Boolean).join(" · ") : " "),
  }));
  async function show() {
    asked = query.value.trim();
    if (!asked) return ((says.textContent = ""), (picked = []), draw());
    try {
      const { hits } = await post(`${collectionPath(name)}/search`, {
        query: asked, k: PICKED, mode: "dense", group_by: "chunk", embedder_version: found.version, include: ["vector"],
      });
      picked = hits.map((hit, at) => located(hit, at, found.map, points)).filter(Boolean);
      says.textContent = picked.length === hits.length ? `${picked.length} hits are on the map.` : `${picked.length} of ${hits.length} hits are in the sample that is drawn.`;
      draw();
    } catch (error) {
      says.textContent = error.message;
    }
  }
  // Of the documents in the active version; each has a name, a marker and a colour.
  async function showGroups() {
    says.textContent = "The clusters are being found …";
    try {
      const { clusters } = await post(`${collectionPath(name)}/clusters`, { clusters: GROUPS, members: 50_000, words: 3 });
      groups = clusters.map(({ words, size }, at) => `${at + 1}. ${words.join(", ") || "no words"} (${count(size)})`);
      const groupOf = new Map(clusters.flatMap(({ ids }, at) => ids.map((id) => [id, at])));
      for (const point of points) point.group = groupOf.get(point.id);
      says.textContent = `${groups.length} clusters by k-means, named by the words that tell them apart.`;
      draw();
    } catch (error) {
      says.textContent = error.message;
    }
  }
  form.addEventListener("submit", (event) => (event.preventDefault(), show()));
  over.textContent = " ";
  draw();
  if (asked) show();
  return [form, active && button("Show the clusters", showGroups, { "data-key": "clusters" }), says, place, over];
}

// Where a hit lies: its vector on the directions of the map, or, without these, the place of the same chunk.
function located(hit, at, { center, directions }, points) {
  const named = { place: String(at + 1), name: hit.title || `${hit.id}, passage ${hit.chunk + 1}` };
  if (directions && hit.vector) {
    const length = Math.hypot(...hit.vector);
    const [x, y] = directions.map((direction) => direction.reduce((sum, one, i) => sum + one * (hit.vector[i] / length - center[i]), 0));
    return { ...named, x, y };
  }
  const same = points.find((point) => point.id === hit.id && point.chunk === hit.chunk);
  return same && { ...named, x: same.x, y: same.y };
}
