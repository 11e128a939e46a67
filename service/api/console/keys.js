// Who may use the service: keys are made, their secrets shown once, rotated and revoked.

import { call, post, useKey } from "./api.js";
import { ask, Question } from "./dialog.js";
import { button, copyButton, el, grid, moment, shorten } from "./dom.js";
import { nothing, reading, section } from "./reading.js";

const ROLES = { read: "searches and reads", write: "also changes documents", admin: "also changes collections, settings and keys" };
const OVERLAPS = { "1h": "for an hour", "1d": "for a day", "7d": "for a week", 0: "not at all: it leaked" };

// The key whose secret is shown, until it is put away.
let fresh = null;
let making = false;

const view = reading({ view: "keys", title: "Keys", load });
export const { open, choose, goBack } = view;

async function load(name, collections, again) {
  const { keys, required } = await list();
  const living = keys.filter((one) => one.active);
  const ended = keys.filter((one) => !one.active);
  const newest = new Map(living.toReversed().map((one) => [one.id, one]));
  const rows = living.map((one) => row(one, newest.get(one.id) === one, again));
  return [
    fresh && secret(again),
    !required && nothing("Everybody who reaches this service may do everything",
      "Make a first key to change that: from then on every request needs one. It is an administrator's, and this tab goes on with it.",
      "Other programs that use the service need keys of their own, which you make next."),
    (making || !required) && form(!required, again),
    required && section("Keys",
      el("div", { class: "line wrap" }, !making && button("New key", () => ((making = true), again()), { "data-key": "new" }),
        el("span", { class: "quiet" }, "One for each program, tenant or person: then each can be ended alone, and audit trails name it.")),
      rows.length ? grid("Keys", ["Name", "Role", "Collections", "Rate", "Last used", "Ends", "Change"], rows)
        : nothing("No key but those of the settings", "The keys of AZIMUTH_API_KEYS are administrators, and are not listed. Give each client one of its own, that may do no more than it needs."),
      ended.length > 0 && el("details", { "data-key": "ended" }, el("summary", {}, `${ended.length} ended`),
        grid("Keys that have ended", ["Name", "Role", "Made", "Ended"], ended.map((one) => [one.name, one.role, when(one.created_at), when(one.expires_at)])))),
  ];
}

// A first key, or a new secret of the one in use, leaves this tab without one: it goes on with the new one.
async function list() {
  try {
    return await call("v1/keys");
  } catch (error) {
    if (error.status !== 401 || fresh?.role !== "admin") throw error;
    useKey(fresh.secret);
    return call("v1/keys");
  }
}

const word = (text, ...more) => el("span", { class: "words" }, text, ...more.filter(Boolean).map((one) => el("span", { class: "quiet" }, one)));

const when = (time) => el("span", { class: "when" }, time ? moment(time) : "never");

function row(one, newest, again) {
  return [
    one.name, one.role,
    word(one.collections.includes("*") ? "all" : one.collections.join(", "), one.filter && shorten(JSON.stringify(one.filter), 80)),
    one.rate ?? "any",
    when(one.last_used_at), when(one.expires_at),
    newest ? el("div", { class: "actions" },
      button("Rotate", () => ask(rotation(one, again)), { "data-key": `rotate ${one.id}`, "aria-label": `Rotate ${one.id}` }),
      button("Revoke", () => ask(revocation(one, again)), { class: "danger", "data-key": `revoke ${one.id}`, "aria-label": `Revoke ${one.id}` }))
      : word("former secret"),
  ];
}

function show(made, again) {
  fresh = made;
  making = false;
  return again();
}

function secret(again) {
  const field = el("input", { id: "secret", readonly: "readonly", autofocus: "autofocus", value: fresh.secret, spellcheck: "false" });
  field.addEventListener("focus", () => field.select());
  return el("section", { class: "note", "aria-label": "The new secret" },
    el("strong", {}, "Copy this secret now."), " It is shown this once. ", fresh.notice,
    el("div", { class: "line" }, el("label", { for: "secret" }, `Secret of ${fresh.name}`), field, copyButton("Copy", () => field.value),
      button("Done", () => ((fresh = null), again()))));
}

function form(first, again) {
  const input = (attributes) => el("input", { spellcheck: "false", autocapitalize: "off", ...attributes });
  const role = el("select", {}, ...Object.entries(ROLES).map(([value, words]) => el("option", { value }, `${value}: ${words}`)));
  const fields = {
    name: input({ ...(!fresh && { autofocus: "autofocus" }), maxlength: "63", placeholder: "one is made up", pattern: "[A-Za-z0-9][A-Za-z0-9_.\\-]*" }),
    collections: input({ placeholder: "all; or papers, logs-*" }),
    filter: input({ placeholder: '{"tenant": "a"}' }),
    rate: input({ placeholder: "any; or 50/s, 600/m" }),
    expires: input({ placeholder: "never; or 12h, 90d" }),
  };
  const labels = { name: "Name, for logs and audit trails", collections: "Collections", filter: "Only documents that pass, as JSON", rate: "Most requests", expires: "Ends after" };
  const [name, ...others] = Object.entries(fields).map(([key, node]) => el("label", {}, labels[key], node));
  const wrong = el("p", { class: "field-error", role: "alert", hidden: "hidden" });
  const node = el("form", { class: "sheet", autocomplete: "off", "aria-label": "A new key" },
    el("h2", {}, first ? "The first key" : "A new key"),
    el("div", { class: "fields" }, name, ...(first ? [] : [el("label", {}, "May do", role), ...others])),
    wrong,
    el("div", { class: "actions" }, el("button", { type: "submit", class: "primary" }, first ? "Make it, and require keys" : "Make it"),
      !first && button("Cancel", () => ((making = false), again()))));
  node.addEventListener("submit", async (event) => {
    event.preventDefault();
    try {
      const said = Object.fromEntries(Object.entries(fields).map(([key, one]) => [key, one.value.trim()]).filter(([, value]) => value));
      const asked = {
        ...said, role: first ? "admin" : role.value,
        ...(said.collections && { collections: said.collections.split(",").map((one) => one.trim()) }),
        ...(said.filter && { filter: JSON.parse(said.filter) }),
      };
      await show(await post("v1/keys", asked), again);
    } catch (error) {
      wrong.textContent = error instanceof SyntaxError ? `The filter is not JSON: ${error.message}` : error.message;
      wrong.hidden = false;
    }
  });
  return node;
}

function rotation(one, again) {
  const overlap = el("select", {}, ...Object.entries(OVERLAPS).map(([value, words]) => el("option", { value }, words)));
  overlap.value = "1h";
  return new Question({
    title: `Give ${one.name} another secret?`, label: "Rotate", noted: false,
    words: [el("p", {}, "It is shown once. Change the clients of this key while the former secret still works."), el("label", {}, "The former one works", overlap)],
    act: async () => {
      const made = await post(`v1/keys/${encodeURIComponent(one.id)}/rotate`, { overlap: overlap.value });
      setTimeout(() => show(made, again)); // once the dialog is closed, which gives the focus back
    },
  });
}

const revocation = (one, again) => new Question({
  title: `Revoke ${one.name}?`, danger: true, label: "Revoke it", noted: false,
  words: [el("p", {}, "Whoever uses it is refused within seconds, with all its secrets, for good.")],
  act: async () => {
    await call(`v1/keys/${encodeURIComponent(one.id)}`, { method: "DELETE" });
    setTimeout(again);
  },
});
