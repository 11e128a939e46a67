// A view of the chosen collection that is only read: loaded, shown, and looked at again every so often.

import { $, el } from "./dom.js";
import { clearProblem, showCounts, showProblem } from "./page.js";

// `load(name, collections, again)` answers what to show; `again()` loads anew at once. `seconds`: until the next look, 0: none.
export function reading({ view, title, load, seconds = 0 }) {
  let collections = [];
  let name = "";
  let timer = 0;
  let turn = 0;

  async function look() {
    clearTimeout(timer);
    const mine = ++turn;
    try {
      const nodes = await load(name, collections, look);
      if (mine !== turn) return;
      clearProblem();
      replace(nodes);
    } catch (error) {
      if (mine !== turn) return;
      showProblem(error);
      if (error.status === 401) return;
    }
    document.body.classList.remove("busy");
    if (seconds && !document.hidden) timer = setTimeout(look, 1_000 * seconds);
  }

  function begin() {
    name = $("collection").value;
    document.title = `${title}${name && ` of ${name}`} – Azimuth`;
    showCounts(collections);
    clearProblem();
    $("answer").replaceChildren(el("p", { class: "quiet waiting" }, "Looking…"));
    return look();
  }

  document.addEventListener("visibilitychange", () => {
    if (seconds && name && !document.hidden) look();
  });

  return {
    open(list) {
      collections = list;
      begin();
    },
    choose() {
      history.pushState(null, "", `?view=${view}&collection=${encodeURIComponent($("collection").value)}`);
      begin();
    },
    goBack() {
      const asked = new URLSearchParams(location.search).get("collection");
      if (collections.some((one) => one.name === asked)) $("collection").value = asked;
      begin();
    },
  };
}

// What had the focus keeps it, and what was unfolded stays so. Where it is gone, what is there instead gets the focus.
export function replace(nodes) {
  const focused = document.activeElement?.dataset.key;
  const inside = $("answer").contains(document.activeElement);
  const unfolded = new Set([...document.querySelectorAll("#answer details[open]")].map((one) => one.dataset.key));
  $("answer").replaceChildren(...nodes.filter(Boolean));
  for (const one of document.querySelectorAll("#answer details[data-key]")) one.open = unfolded.has(one.dataset.key);
  const same = focused && document.querySelector(`#answer [data-key="${CSS.escape(focused)}"]`);
  const wanted = !same && (inside || document.activeElement === document.body) && document.querySelector("#answer [autofocus]");
  if (wanted) wanted.focus();
  else if (same || inside) (same || $("answer")).focus({ preventScroll: true });
}

export const section = (title, ...parts) => el("section", { class: "part" }, el("h2", {}, title), ...parts);
export const nothing = (title, ...lines) =>
  el("section", { class: "empty" }, el("h2", {}, title), ...lines.map((line) => el("p", { class: "quiet" }, line)));
