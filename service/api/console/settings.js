// The settings of a collection that can be changed in place. Embedder and passages are those of a version.

import { call, collectionPath } from "./api.js";
import { el } from "./dom.js";

const whole = { type: "number", min: "1", required: "required" };
const share = { type: "number", min: "0", max: "1", step: "any", required: "required" };
// Of each the label, the attributes of its input, and where it stands in the settings.
const FIELDS = [
  ["Language, or auto for several", { required: "required", maxlength: "32", spellcheck: "false" }, "language"],
  ["Recall target", share, "recall_target"],
  ["Weight of the dense leg (convex)", share, "fusion", "alpha"],
  ["k (RRF)", { ...whole, max: "10000" }, "fusion", "k"],
  ["Candidates of each leg", { ...whole, max: "1000" }, "candidates"],
  ["Hits that are reranked", { ...whole, max: "1000" }, "rerank", "depth"],
  ["Weight of the reranker", share, "rerank", "weight"],
];

export function settingsForm(name, settings, again) {
  const rows = FIELDS.map(([label, attributes, part, key]) => ({ label, part, key, node: el("input", { ...attributes, value: key ? settings[part][key] : settings[part] }) }));
  const fusion = el("select", {}, ...["convex", "rrf"].map((one) => el("option", { value: one }, one)));
  fusion.value = settings.fusion.method;
  rows.splice(2, 0, { label: "Fusion", part: "fusion", key: "method", node: fusion });
  const declared = settings.indexed.map((one) => (one.field ? `${one.field}: ${one.type}` : one)).join("\n");
  const indexed = el("textarea", { rows: "3", spellcheck: "false", placeholder: "year\npublished: datetime" }, declared);
  const said = el("p", { role: "status", class: "quiet" });
  const form = el("form", { class: "sheet editor", "aria-label": "Settings" },
    el("div", { class: "fields" }, ...rows.map(({ label, node }) => el("label", {}, label, node))),
    el("label", { class: "wide" }, "Fields that filters find by an index, one a line, with a type where all values have one (number, string, datetime)", indexed),
    settings.tuned && el("p", { class: "quiet" }, "Fusion, candidates and reranking were chosen by azimuth tune; a change by hand forgets on what."),
    el("div", { class: "actions" }, el("button", { type: "submit", class: "primary" }, "Save")), said);
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const changed = {};
    for (const { part, key, node } of rows) {
      const value = node.type === "number" ? Number(node.value) : node.value.trim();
      if (value === (key ? settings[part][key] : settings[part])) continue;
      changed[part] = key ? { ...changed[part], [key]: value } : value;
    }
    if (indexed.value.trim() !== declared) {
      changed.indexed = indexed.value.split("\n").map((line) => line.trim()).filter(Boolean).map((line) => {
        const typed = line.match(/^(.+):\s*(number|string|datetime)$/);
        return typed ? { field: typed[1].trim(), type: typed[2] } : line;
      });
    }
    try {
      await call(collectionPath(name), { method: "PUT", body: JSON.stringify(changed) });
      await again();
      document.querySelector("#answer .sheet [role=status]").textContent = "Saved.";
    } catch (error) {
      said.className = "field-error";
      said.textContent = error.message;
    }
  });
  return el("details", { "data-key": "settings" }, el("summary", {}, "Settings"), form);
}
