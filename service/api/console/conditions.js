// A filter as conditions that are taken away by a click, and a form that adds one. What is more than that stays JSON.

import { collectionPath, post } from "./api.js";
import { button, count, el, shorten } from "./dom.js";

const COUNTED_UP_TO = 20_000;
const MOST_FIELDS = 8;
const UNCOUNTED = new Set(["ingested", "path", "modified"]);

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

// Values that narrow the filter by a click, with how many documents have them; `collection` as the service describes it.
// Counting what is not declared reads all documents, so large collections show declared fields alone.
export async function facets(collection, filter, names, choose) {
  const declared = collection.settings.indexed.map((one) => one.field ?? one);
  const fields = (collection.counts.documents > COUNTED_UP_TO ? declared : [...new Set([...declared, ...names])])
    .filter((name) => !UNCOUNTED.has(name)).slice(0, MOST_FIELDS);
  if (!fields.length) return false;
  const asked = { facets: fields.map((field) => ({ field, limit: 8 })), ...(Object.keys(filter).length && { filter }) };
  const { facets: found } = await post(`${collectionPath(collection.name)}/facets`, asked);
  const telling = Object.entries(found).filter(([, one]) => one.distinct > 1 && one.distinct <= 0.8 * one.documents);
  return telling.length > 0 && el("section", { class: "facets-beside", "aria-label": "Narrow down" }, ...telling.map(([name, { values }]) =>
    el("div", { class: "chips" }, el("span", { class: "quiet" }, name), ...values.map(({ value, count: times }) =>
      button(el("span", {}, shorten(told(value), 40), " ", el("span", {}, count(times))), () => choose(name, value), { class: "chip", "aria-label": `Only where ${name} is ${told(value)}, ${times}` })))));
}

// Of the fields that hold a text, a number or the like.
export const namesIn = (documents) => [...new Set(documents.flatMap(({ metadata }) =>
  Object.entries(metadata ?? {}).filter(([, value]) => value !== null && typeof value !== "object").map(([name]) => name)))];
