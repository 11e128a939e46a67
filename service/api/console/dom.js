// Elements and words. Nothing from the service is ever put in as HTML: text goes in as text.

export const $ = (id) => document.getElementById(id);

export function el(tag, attributes, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) if (value !== "") node.setAttribute(name, value);
  node.append(...children.filter((child) => child !== null && child !== false && child !== undefined));
  return node;
}

export function button(label, act, attributes = {}) {
  const node = el("button", { type: "button", ...attributes }, label);
  node.addEventListener("click", act);
  return node;
}

// `read()` answers what is copied. Without TLS, on another machine, browsers have no clipboard for pages but the older way.
export function copyButton(label, read, attributes = {}) {
  const node = button(label, async () => {
    if (navigator.clipboard) await navigator.clipboard.writeText(read());
    else {
      const area = el("textarea", {}, read());
      node.after(area);
      area.select();
      document.execCommand("copy");
      area.remove();
    }
    node.textContent = "Copied";
    setTimeout(() => (node.textContent = label), 1500);
  }, attributes);
  return node;
}

export const note = (title, text) => el("p", { class: "note" }, el("strong", {}, title), " ", text);

// A table with heads and rows of cells; the first of a row names it. On a phone each row is a card, so each cell knows
// its head, and the roles are told, which the other layout would take away.
export const grid = (label, heads, rows) =>
  el("div", { class: "scroller", tabindex: "0", role: "region", "aria-label": label },
    el("table", { class: "grid cards", role: "table" },
      el("thead", { role: "rowgroup" }, el("tr", { role: "row" }, ...heads.map((head) => el("th", { scope: "col", role: "columnheader" }, head)))),
      el("tbody", { role: "rowgroup" }, ...rows.map((cells) =>
        el("tr", { role: "row" }, ...cells.map((cell, at) =>
          at ? el("td", { role: "cell", "data-head": heads[at] }, cell) : el("th", { scope: "row", role: "rowheader" }, cell)))))));

// A verdict has a sign and a word, never a colour alone. Unknown ones are shown as they are.
const SIGNS = { healthy: "passed", held: "passed", watch: "watch", broken: "failed", missed: "failed" };
export const verdict = (word, words = word) => el("span", { class: `verdict ${SIGNS[word] ?? "told"}` }, words);

// A list of names and values.
export const card = (facts) =>
  el("dl", { class: "card" }, ...Object.entries(facts).flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, value)]));

export const shorten = (text, length) => (text.length > length ? `${text.slice(0, length).trimEnd()}…` : text);
export const count = (value) => value.toLocaleString("en");
export const percent = (share) => `${(100 * share).toLocaleString("en", { maximumSignificantDigits: 2 })} %`;
export const share = (value, digits = 1) => `${(100 * value).toFixed(digits)}\u00a0%`;
export const bytes = (value) => {
  const unit = [["GB", 1e9], ["MB", 1e6], ["kB", 1e3]].find(([, size]) => value >= size) ?? ["B", 1];
  return `${(value / unit[1]).toLocaleString("en", { maximumFractionDigits: 1 })} ${unit[0]}`;
};
export const ms = (value) => `${value < 10 ? value.toFixed(1) : Math.round(value)} ms`;
export const number = (value) => (Math.abs(value) >= 10 ? value.toFixed(1) : Math.abs(value) >= 0.1 ? value.toFixed(3) : value.toFixed(4));

// In the two largest units that say something: 47 s, 3 min 20 s, 6 d 3 h.
export function duration(seconds) {
  let left = Math.max(0, Math.round(seconds));
  const parts = [];
  for (const [unit, size] of [["d", 86400], ["h", 3600], ["min", 60], ["s", 1]]) {
    const amount = Math.floor(left / size);
    left %= size;
    if (amount || parts.length) parts.push([amount, unit]);
  }
  return parts.slice(0, 2).filter(([amount]) => amount).map((part) => part.join(" ")).join(" ") || "0 s";
}

const MOMENT = new Intl.DateTimeFormat("en-GB", { dateStyle: "medium", timeStyle: "medium" });
export const moment = (text) => el("time", { datetime: text }, MOMENT.format(new Date(text)));
