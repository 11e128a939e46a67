// Suggestions below a box, as the combobox of the ARIA practices: arrows choose, Enter takes, Escape closes.

import { el } from "./dom.js";

// `find` gives the texts that complete what was typed; `taken` is told that the box has one of them.
export function complete(box, list, find, taken) {
  let latest = 0;
  const chosen = () => list.querySelector("[aria-selected=true]");
  const show = (texts) => {
    list.replaceChildren(...texts.map((text, at) => el("li", { role: "option", id: `suggestion-${at}`, "aria-selected": "false" }, text)));
    list.hidden = !texts.length;
    box.setAttribute("aria-expanded", String(!list.hidden));
    box.removeAttribute("aria-activedescendant");
  };
  const close = () => (latest++, show([]));
  const take = (option) => {
    box.value = option.textContent;
    close();
    taken();
  };
  const move = (step) => {
    const options = [...list.children];
    const at = options.indexOf(chosen());
    chosen()?.setAttribute("aria-selected", "false");
    const next = options[at < 0 && step < 0 ? options.length - 1 : at + step];
    next?.setAttribute("aria-selected", "true");
    next?.scrollIntoView({ block: "nearest" });
    next ? box.setAttribute("aria-activedescendant", next.id) : box.removeAttribute("aria-activedescendant");
  };
  box.addEventListener("input", async () => {
    const mine = ++latest;
    const found = box.value.trim() ? await find(box.value).catch(() => []) : [];
    if (mine === latest) show(found.filter((text) => text !== box.value));
  });
  box.addEventListener("keydown", (event) => {
    if (list.hidden || event.isComposing) return;
    const act = { ArrowDown: () => move(1), ArrowUp: () => move(-1), Escape: close, Enter: chosen() && (() => take(chosen())) }[event.key];
    if (act) (event.preventDefault(), act());
  });
  box.addEventListener("blur", close);
  list.addEventListener("mousedown", (event) => (event.preventDefault(), event.target.closest("li") && take(event.target.closest("li"))));
  return { close };
}
