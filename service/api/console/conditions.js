// A filter as conditions that are taken away by a click, and a form that adds one. What is more than that stays JSON.

import { button, el, shorten } from "./dom.js";

const SIGNS = { $eq: "is", $ne: "is not", $gte: "at least", $lte: "at most", $contains: "contains", $exists: "is there" };

const told = (value) => (typeof value === "string" ? value : JSON.stringify(value));

function words(name, condition) {
  const [[sign, value]] = condition !== null && typeof condition === "object" ? Object.entries(condition) : [["$eq", condition]];
  return `${name} ${SIGNS[sign] ?? sign} ${told(value)}`;
}

// `change(filter)` is called with what is wanted instead; `fields`: names to be offered.
export function conditions(filter, fields, change) {
  const chips = Object.entries(filter).map(([name, condition]) => {
    const { [name]: _, ...rest } = filter;
    return button(`${shorten(words(name, condition), 60)} ✕`, () => change(rest), { class: "chip set", "aria-label": `Take away: ${words(name, condition)}` });
  });
  const field = el("input", { list: "known-fields", "aria-label": "Field", placeholder: "field", required: "required", size: "14", spellcheck: "false" });
  const sign = el("select", { "aria-label": "Comparison" }, ...Object.entries(SIGNS).map(([value, name]) => el("option", { value }, name)));
  const value = el("input", { "aria-label": "Value", placeholder: "value", size: "14", spellcheck: "false" });
  const form = el("form", { class: "line adding" }, field, sign, value, el("button", { type: "submit" }, "Add condition"),
    el("datalist", { id: "known-fields" }, ...fields.map((name) => el("option", { value: name }))));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (!field.value.trim()) return field.focus();
    const typed = sign.value === "$exists" ? value.value !== "false" : parsed(value.value);
    change({ ...filter, [field.value.trim()]: sign.value === "$eq" ? typed : { [sign.value]: typed } });
  });
  return el("div", { class: "conditions" }, chips.length > 0 && el("div", { class: "chips", role: "group", "aria-label": "Filter" }, ...chips), form);
}

// Numbers, true, false and what is quoted as such; everything else is text.
function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}

// The values of fields as [name, [[value, count], ...]], most frequent first, each of which narrows the filter by a click.
export const facets = (found, choose) =>
  found.length > 0 && el("section", { class: "facets-beside", "aria-label": "Narrow down" }, ...found.map(([name, values]) =>
    el("div", { class: "chips" }, el("span", { class: "quiet" }, name), ...values.map(([value, times]) =>
      button(el("span", {}, shorten(told(value), 40), " ", el("span", {}, times)), () => choose(name, value), { class: "chip", "aria-label": `Only where ${name} is ${told(value)}, ${times}` })))));

// Of documents that are shown: fields with few values each, which tell them apart.
export function counted(documents) {
  const fields = new Map();
  for (const { metadata } of documents) {
    for (const [name, value] of Object.entries(metadata ?? {})) {
      if (value === null || typeof value === "object" || name === "modified") continue;
      const values = fields.get(name) ?? fields.set(name, new Map()).get(name);
      values.set(value, (values.get(value) ?? 0) + 1);
    }
  }
  return [...fields].filter(([, values]) => values.size > 1 && values.size <= 12 && values.size <= 0.8 * documents.length)
    .slice(0, 5).map(([name, values]) => [name, [...values].sort((a, b) => b[1] - a[1]).slice(0, 8)]);
}
