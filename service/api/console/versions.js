// The view of a collection's embedder versions: how far they are, what speaks for them, and what may be done with them.

import { call, collectionPath, post } from "./api.js";
import { ask, Question } from "./dialog.js";
import { $, button, count, el } from "./dom.js";
import { evidence, trail } from "./evidence.js";
import { clearProblem, showCounts, showProblem } from "./page.js";
import * as registration from "./registration.js";
import { PASSING, table } from "./table.js";

// Milliseconds between two looks: quick while something moves, slower the longer nothing does.
const QUICK = 1_000;
const SLOW = 10_000;
const RESTING = 20_000;
const FAILING = 30_000;

let collections = [];
let name = "";
let found = null;
let entries = [];
let older = null;
let shown = "";
let states = "";
let wait = QUICK;
let timer = 0;
let failing = false;
let unfolded = null;
const opened = new Set();

// ---------------------------------------------------------------- looking

async function look() {
  clearTimeout(timer);
  const mine = name;
  try {
    const answer = await call(`${collectionPath(mine)}/versions`);
    if (mine !== name) return;
    const now = JSON.stringify(answer.versions.map(({ number, state, paused, active, previous }) => [number, state, paused, active, previous]));
    if (now !== states) await lookBack(mine);
    if (mine !== name) return;
    announce(answer);
    found = answer;
    states = now;
    const moved = render();
    const underway = found.versions.some((one) => one.state in PASSING && !one.paused);
    wait = !underway ? RESTING : moved ? QUICK : Math.min(wait * 1.5, SLOW);
    if (failing) clearProblem();
    failing = false;
  } catch (error) {
    if (mine !== name) return;
    showProblem(error);
    if (error.status === 401 || error.status === 404) return;
    failing = true;
    wait = Math.min(wait * 2, FAILING);
  }
  clearTimeout(timer);
  if (!document.hidden) timer = setTimeout(look, wait);
}

// The newest of the audit trail, which changes with the states.
async function lookBack(mine) {
  const page = await call(`${collectionPath(mine)}/audit?limit=20`);
  if (mine !== name) return;
  entries = page.entries;
  older = page.next_cursor;
}

async function lookFurtherBack() {
  const mine = name;
  const page = await call(`${collectionPath(mine)}/audit?limit=100&cursor=${encodeURIComponent(older)}`);
  if (mine !== name) return;
  entries = [...entries, ...page.entries];
  older = page.next_cursor;
  render();
}

function announce(answer) {
  if (!found) return;
  const before = new Map(found.versions.map((one) => [one.number, one.state]));
  const news = answer.versions.filter((one) => before.get(one.number) !== one.state);
  if (news.length) $("status").textContent = news.map((one) => `Version ${one.number} is ${one.state}`).join(", ");
}

// ---------------------------------------------------------------- showing

// True where anything changed. What has the focus and what is unfolded stays so.
function render() {
  const now = JSON.stringify([found, entries, older, unfolded]);
  if (now === shown) return false;
  shown = now;
  const focused = document.activeElement?.dataset.key;
  $("answer").replaceChildren(
    el("section", { class: "versions", "aria-label": `Embedder versions of ${name}` }, head(), table(found.versions, { unfolded, opened, toggle, actions })),
    el("section", { class: "history", "aria-labelledby": "history" },
      el("h2", { id: "history" }, "Who changed what"),
      trail(entries, opened),
      older && button("Older entries", guarded(lookFurtherBack), { class: "plain", "data-key": "older" })));
  if (focused) focusOn(focused);
  return true;
}

// What had the focus; where that is gone (a version that is paused has no Pause), the row that it stood in.
function focusOn(key) {
  const named = (one) => document.querySelector(`[data-key="${CSS.escape(one)}"]`);
  (named(key) ?? named(`row ${key.match(/\d+/)}`))?.focus({ preventScroll: true });
}

function head() {
  const { active_version: active, previous_version: previous } = found;
  return el("div", { class: "facts" },
    el("h2", { class: "lead" }, "Version ", el("b", {}, active), " answers"),
    previous !== null && el("span", {}, "version ", el("b", {}, previous), " is one roll back away"),
    el("span", { class: "actions" },
      previous !== null && button(`Roll back to ${previous}`, () => ask(rollBack(active, previous)), { "data-key": "roll back" }),
      button("New version", openRegistration, { class: "primary", "data-key": "new" })));
}

function toggle(number) {
  unfolded = unfolded === number ? null : number;
  render();
}

// ---------------------------------------------------------------- doing

function actions(one) {
  const key = (verb) => ({ "data-key": `${verb} ${one.number}` });
  const change = (verb) => guarded(async () => (await post(versionPath(one, verb)), look()));
  return [
    one.state === "ready" && !one.active && button("Promote", () => ask(promotion(one)), { class: "primary", ...key("promote") }),
    one.state === "backfilling" && !one.paused && button("Pause", change("pause"), key("pause")),
    (one.paused || one.state === "failed") && button("Resume", change("resume"), key("resume")),
    !one.active && one.state !== "retired" && button("Retire", () => ask(retirement(one)), { class: "danger", ...key("retire") }),
  ].filter(Boolean);
}

const versionPath = (one, verb = "") => `${collectionPath(name)}/versions/${one.number}${verb && `/${verb}`}`;

// What goes wrong outside of a dialog is shown above.
const guarded = (act) => async () => {
  clearProblem();
  try {
    await act();
  } catch (error) {
    showProblem(error);
  }
};

function promotion(one) {
  const from = found.active_version;
  const failed = one.checks.filter((check) => check.passed === false);
  return new Question({
    title: `Let version ${one.number} answer?`,
    words: [
      el("p", {}, `Searches go from version ${from} to version ${one.number} at once. Version ${from} stays complete, so that you can roll back.`),
      failed.length > 0 && el("p", { class: "note bad" }, `When last looked at, ${failed.map((check) => check.name).join(", ")} failed.`),
    ].filter(Boolean),
    label: "Promote",
    act: (note) => promoted(one, note, false),
  });
}

async function promoted(one, note, force) {
  try {
    await post(versionPath(one, "promote"), { force, note });
  } catch (error) {
    if (error.kind !== "promotion-refused" || force) throw error;
    look();
    throw new Question({
      title: `The evidence speaks against version ${one.number}`,
      words: [evidence(failedFirst(error.problem.checks ?? []), `refusal ${one.number}`, opened)],
      label: "Promote by force",
      danger: true,
      oath: "Promote it all the same. The audit trail keeps that it was forced, and against what.",
      act: (again) => promoted(one, again, true),
    });
  }
  await look();
}

const failedFirst = (checks) => [...checks].sort((a, b) => (b.passed === false) - (a.passed === false));

const rollBack = (from, to) => new Question({
  title: `Roll back to version ${to}?`,
  words: [el("p", {}, `Searches go from version ${from} back to version ${to} at once. It has everything that was written since.`)],
  label: "Roll back",
  act: async (note) => (await post(`${collectionPath(name)}/versions/rollback`, { from, note }), look()),
});

const retirement = (one) => new Question({
  title: `Retire version ${one.number}?`,
  words: [el("p", {}, `Its ${count(one.chunks)} vectors are dropped for good. There is no way back to it.`,
    one.previous ? " It is the version that a roll back would go to." : "")],
  label: "Drop its vectors",
  danger: true,
  act: async (note) => (await call(`${versionPath(one)}?confirm=${one.number}&note=${encodeURIComponent(note)}`, { method: "DELETE" }), look()),
});

function openRegistration() {
  registration.fill(found.versions.find((one) => one.active));
  registration.show(true);
}

$("registration").addEventListener("submit", async (event) => {
  event.preventDefault();
  await guarded(async () => {
    $("registration-yes").disabled = true;
    try {
      unfolded = (await registration.register(name)).number;
      registration.show(false);
    } catch (error) {
      const there = error.kind === "version-exists" && error.problem.errors.find((one) => one.field === "version");
      if (there) unfolded = Number(there.message);
      throw error;
    } finally {
      $("registration-yes").disabled = false;
      look();
    }
  })();
});

// ---------------------------------------------------------------- the view

export function open(list) {
  collections = list;
  $("search").hidden = true;
  begin();
}

export function choose() {
  history.pushState(null, "", `?view=versions&collection=${encodeURIComponent($("collection").value)}`);
  begin();
}

export function goBack() {
  const asked = new URLSearchParams(location.search).get("collection");
  if (collections.some((one) => one.name === asked)) $("collection").value = asked;
  begin();
}

async function begin() {
  name = $("collection").value;
  document.title = `Versions of ${name} – Azimuth`;
  [found, entries, older, unfolded, shown, states, wait] = [null, [], null, null, "", "", QUICK];
  opened.clear();
  registration.show(false);
  clearProblem();
  showCounts(collections);
  $("answer").replaceChildren();
  await look();
  // What is on its way or waits for a decision is what one came for.
  const open = found?.versions.findLast((one) => one.state in PASSING || one.state === "failed" || (one.state === "ready" && !one.previous));
  if (open) ((unfolded = open.number), render());
}

document.addEventListener("visibilitychange", () => {
  if (found && !document.hidden) look();
});
