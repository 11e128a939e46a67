// What speaks for and against a version, and who changed what on which evidence.

import { el, moment } from "./dom.js";

const VERDICTS = new Map([[true, ["passed", "passed"]], [false, ["failed", "failed"]], [null, ["told", "for information"]]]);

// `opened` remembers by `key` which figures are unfolded, across renewals of the page.
export function evidence(checks, key, opened) {
  return el("table", { class: "evidence" },
    el("caption", { class: "unseen" }, "Evidence"),
    el("thead", {}, el("tr", {}, ...["Check", "Verdict", "Detail"].map((name) => el("th", { scope: "col" }, name)))),
    el("tbody", {}, ...checks.map((check) => row(check, `${key}:${check.name}`, opened))));
}

function row(check, key, opened) {
  const [tone, verdict] = VERDICTS.get(check.passed);
  return el("tr", {},
    el("th", { scope: "row" }, check.name),
    el("td", {}, el("span", { class: `verdict ${tone}` }, verdict)),
    el("td", { class: "detail" }, check.detail, Object.keys(check.figures).length > 0 && figures(check, key, opened)));
}

function figures(check, key, opened) {
  const rows = flat(check.figures).map(([name, value]) => el("tr", {}, el("th", { scope: "row" }, name), el("td", {}, value)));
  const details = el("details", { class: "figures", ...(opened.has(key) && { open: "open" }) },
    el("summary", { "data-key": `figures ${key}` }, "Figures"),
    el("table", {}, el("caption", { class: "unseen" }, `Figures of ${check.name}`), el("tbody", {}, ...rows)));
  details.addEventListener("toggle", () => (details.open ? opened.add(key) : opened.delete(key)));
  return details;
}

// Nested figures as pairs of a dotted name and a text.
function flat(value, name = "") {
  if (Array.isArray(value) && value.every((one) => typeof one !== "object" || one === null)) return [[name, value.map(text).join("   ")]];
  if (value === null || typeof value !== "object") return [[name, text(value)]];
  return Object.entries(value).flatMap(([key, one]) => flat(one, name ? `${name}.${key}` : key));
}

const text = (value) =>
  typeof value === "number" && !Number.isInteger(value) ? value.toLocaleString("en", { maximumSignificantDigits: 5 })
    : typeof value === "number" ? value.toLocaleString("en") : String(value ?? "–");

// ---------------------------------------------------------------- the audit trail

export function trail(entries, opened) {
  return el("ol", { class: "trail" }, ...entries.map((entry) => el("li", {},
    el("div", { class: "when" }, moment(entry.at)),
    el("div", {},
      el("b", {}, deed(entry)), " by ", el("span", { class: "who" }, entry.actor),
      entry.note && el("q", { class: "why" }, entry.note),
      entry.details.checks?.length > 0 && onWhich(entry, opened)))));
}

function onWhich(entry, opened) {
  const key = `entry ${entry.number}`;
  const details = el("details", { ...(opened.has(key) && { open: "open" }) },
    el("summary", { "data-key": key }, "Evidence at that time"), evidence(entry.details.checks, key, opened));
  details.addEventListener("toggle", () => (details.open ? opened.add(key) : opened.delete(key)));
  return details;
}

// What was done to which version, in words.
function deed({ action, version, before, details }) {
  const failed = (details.checks ?? []).filter((check) => check.passed === false).map((check) => check.name);
  const words = {
    created: "Created",
    registered: `Version ${version} registered`,
    indexing: `Version ${version} filled: its index is built`,
    verifying: `Version ${version} indexed: evidence is gathered`,
    ready: `Version ${version} ready`,
    failed: `Version ${version} failed`,
    paused: `Version ${version} paused`,
    resumed: `Version ${version} resumed`,
    promoted: `Version ${version} promoted in place of ${before}`,
    rolled_back: `Rolled back to version ${version} from ${before}`,
    retired: `Version ${version} retired`,
    judgments: "Judgments changed",
    settings: "Settings changed",
    tuned: "Ranking tuned",
    effort: `Version ${version}: how far its index looks`,
    renamed: `Renamed to ${details.after}`,
    alias_set: `The alias ${details.alias} leads here`,
    alias_deleted: `The alias ${details.alias} deleted`,
    reindexed: `Version ${version}: its index was built anew`,
  }[action] ?? action;
  if (details.forced) return `${words} by force, against ${failed.join(", ")}`;
  return failed.length ? `${words}, with ${failed.join(", ")} failed` : words;
}
