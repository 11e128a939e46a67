// The index of each version: whether it is whole, what it weighs, and what to do about it.

import { call, collectionPath, post } from "./api.js";
import { ask, Question } from "./dialog.js";
import { button, bytes, card, count, el, share, verdict } from "./dom.js";
import { reading, section } from "./reading.js";

const GONE = new Set(["retired", "failed"]);

const view = reading({
  view: "index", title: "Index", seconds: 15,
  async load(name, collections, again) {
    const { versions, active_version: active } = await call(`${collectionPath(name)}/versions`);
    const standing = versions.filter((one) => !GONE.has(one.state)).sort((a, b) => (b.number === active) - (a.number === active) || b.number - a.number);
    const found = await Promise.all(standing.map((one) => call(`${collectionPath(name)}/versions/${one.number}/index`)));
    return standing.map((one, at) => part(name, one, found[at], one.number === active, again));
  },
});

export const { open, choose, goBack } = view;

function part(name, version, found, active, again) {
  const { index } = found;
  const whole = found.rows + found.dead_rows;
  const rebuild = new Question({
    title: `Build the index of version ${version.number} anew?`,
    words: [el("p", {}, "It is built beside the present one, which answers until then. Searches and writes go on; the build takes processor time and as much disk again.")],
    label: "Build it anew",
    act: async (why) => (await post(`${collectionPath(name)}/versions/${version.number}/reindex`, { note: why }), again()),
  });
  return section(`Version ${version.number}${active ? ", which answers" : `, ${version.state}`}`,
    el("ul", { class: "advice" }, ...found.advice.map((one) => el("li", {},
      verdict(one.verdict), " ", one.says, one.do && el("span", { class: "todo" }, el("b", {}, "Do: "), one.do)))),
    card({
      Vectors: count(found.rows),
      "Dead rows": found.dead_rows ? `${count(found.dead_rows)} (${share(found.dead_rows / whole)})` : "none",
      "Not in the index": found.unindexed_rows ? `${count(found.unindexed_rows)} without a direction` : "none",
      Index: index ? [index.name, index.building ? "being built" : index.valid ? "valid" : "invalid"].join(", ") : "none: all is scanned exactly",
      ...(index && { "Its size": bytes(index.bytes) }),
      Table: bytes(found.table_bytes),
      "Memory to cache": `${bytes(found.cache_bytes)}${index && index.bytes > found.cache_bytes ? ", less than the index" : ""}`,
    }),
    index && el("div", { class: "actions" }, button("Build the index anew", () => ask(rebuild), { "data-key": `reindex ${version.number}`, ...(index.building && { disabled: "disabled" }) })));
}
