// What all views share: the picker of collections, the key, and what is wrong.

import { forgetKey, hasKey } from "./api.js";
import { $, count, el } from "./dom.js";

export function showCounts(collections) {
  const chosen = collections.find((one) => one.name === $("collection").value);
  const parts = chosen && [
    `${count(chosen.counts.documents)} documents`,
    chosen.counts.pending && `${count(chosen.counts.pending)} waiting`,
    chosen.counts.failed && `${count(chosen.counts.failed)} set aside`,
  ];
  $("counts").textContent = parts ? parts.filter(Boolean).join(" · ") : "";
}

export function showProblem(error) {
  if (error.status === 401) return askForKey();
  const problem = error.problem;
  const fields = problem?.errors ?? [];
  const title = error.status ? problem.title || "The service refused." : "The service does not answer.";
  const detail = error.status ? error.message : "It may be starting, or the connection is gone.";
  const list = fields.length > 1 && el("ul", {}, ...fields.map((one) => el("li", {}, `${one.field}: ${one.message}`)));
  $("problem").replaceChildren(...[el("strong", {}, title), " ", detail, list,
    problem?.request_id && el("div", { class: "quiet" }, "Request ", el("code", {}, problem.request_id))].filter(Boolean));
  $("problem").hidden = false;
}

export function clearProblem() {
  $("problem").hidden = true;
}

function askForKey() {
  const refused = hasKey();
  forgetKey();
  askingForKey(true);
  $("key-error").hidden = !refused;
  $("key-error").textContent = "This key is not known.";
  $("answer").replaceChildren();
  $("api-key").focus();
}

// Without a key there is nothing to choose and nothing to ask.
export function askingForKey(asking) {
  $("key").hidden = !asking;
  document.body.classList.toggle("locked", asking);
}
