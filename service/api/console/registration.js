// The form for a new version: it begins as the active one is, and what it shows is what is asked for.

import { collectionPath, post } from "./api.js";
import { $ } from "./dom.js";

const WHOLE = ["dimensions", "max_tokens", "overlap_tokens", "m", "ef_construction"];
const PARTS = {
  embedder: ["model", "revision", "query_prompt", "document_prompt", "dimensions", "identity"],
  chunking: ["max_tokens", "overlap_tokens"],
  index: ["storage", "m", "ef_construction"],
};

const field = (name) => $("registration").elements.namedItem(name);

export function fill(active) {
  for (const [part, names] of Object.entries(PARTS)) {
    for (const name of names) field(name).value = active[part][name] ?? "";
  }
  field("note").value = "";
  external();
}

// Empty is what is not said: all dimensions, as long as the embedder takes.
export function body() {
  const asked = { note: field("note").value.trim() };
  for (const [part, names] of Object.entries(PARTS)) {
    asked[part] = {};
    for (const name of names) {
      const value = field(name).value;
      if (field(name).closest("[hidden]")?.id === "identity-box") continue;
      if (value !== "") asked[part][name] = WHOLE.includes(name) ? Number(value) : value;
    }
  }
  if (!("max_tokens" in asked.chunking)) asked.chunking.max_tokens = null;
  return asked;
}

export const register = (collection) => post(`${collectionPath(collection)}/versions`, body());

// Only vectors that clients bring have a name of their own.
function external() {
  $("identity-box").hidden = field("model").value.trim() !== "external";
}

export function show(open) {
  $("registration").hidden = !open;
  if (open) field("model").focus();
}

field("model").addEventListener("input", external);
$("registration-no").addEventListener("click", () => show(false));
