// A new collection, from its name to where files are dropped on it.

import { call, collectionPath } from "./api.js";
import { $, button, el } from "./dom.js";

export function showCreation(first) {
  const name = el("input", { required: "required", pattern: "[a-z0-9][a-z0-9_\\-]{0,62}", maxlength: "63", spellcheck: "false", autocapitalize: "off", placeholder: "papers" });
  const language = el("input", { maxlength: "10", placeholder: "en, or auto for several", spellcheck: "false" });
  const embedder = el("input", { maxlength: "300", placeholder: "the default", spellcheck: "false" });
  const wrong = el("p", { class: "field-error", role: "alert", hidden: "hidden" });
  const form = el("form", { class: "sheet", autocomplete: "off", "aria-label": "A new collection" },
    el("h2", {}, first ? "Make your first collection" : "A new collection"),
    el("p", { class: "quiet" }, "A collection is a named set of documents that are searched together. Name it, then drop files on it."),
    el("div", { class: "fields" },
      el("label", {}, "Name", name, el("span", { class: "quiet" }, "small letters, digits, - and _")),
      el("label", {}, "Language of the documents", language),
      el("label", {}, "Embedder", embedder)),
    wrong,
    el("div", { class: "actions" }, el("button", { type: "submit", class: "primary" }, "Create"), !first && button("Cancel", () => location.reload())),
    first && el("p", { class: "quiet" }, "Or from a shell: ", el("code", {}, "azimuth ingest FOLDER --collection papers")));
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    if ([...$("collection").options].some((one) => one.value === name.value.trim())) {
      wrong.textContent = "There is a collection of this name.";
      wrong.hidden = false;
      return;
    }
    const settings = { ...(language.value.trim() && { language: language.value.trim() }), ...(embedder.value.trim() && { embedder: embedder.value.trim() }) };
    try {
      await call(collectionPath(name.value.trim()), { method: "PUT", body: JSON.stringify(settings) });
      location.assign(`?view=documents&collection=${encodeURIComponent(name.value.trim())}`);
    } catch (error) {
      wrong.textContent = error.message;
      wrong.hidden = false;
    }
  });
  $("search").hidden = true;
  $("keys").hidden = true;
  $("answer").replaceChildren(form);
  name.focus();
}
