// Charts as SVG, drawn here, without a library. No colour carries a meaning alone: series differ in dash and marker
// too, and under each chart stands its table.

import { el } from "./dom.js";

const SVG = "http://www.w3.org/2000/svg";
const PAD = { top: 10, right: 14, bottom: 38, left: 58 };
const DASHES = ["", "7 4", "2 4", "9 3 2 3", "4 2", "1 3"];
const MARKERS = [
  (x, y) => `M${x - 3} ${y}a3 3 0 1 0 6 0a3 3 0 1 0 -6 0`,
  (x, y) => `M${x - 3} ${y - 3}h6v6h-6z`,
  (x, y) => `M${x} ${y - 4}l4 7h-8z`,
  (x, y) => `M${x} ${y - 4}l4 4l-4 4l-4 -4z`,
  (x, y) => `M${x - 4} ${y - 3}h8l-4 7z`,
  (x, y) => `M${x - 3} ${y - 3}l6 6m0 -6l-6 6`,
];

export function svg(tag, attributes, ...children) {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children.filter(Boolean));
  return node;
}

// ---------------------------------------------------------------- the frame of a chart

// `draw(width)` gives the SVG. It is asked again when the width changes, so that letters keep their size on a phone.
function figure({ title, unit = "", about = "", height = 240, draw, heads, rows, legend = [] }) {
  const plot = el("div", { class: "plot" });
  plot.style.height = `${height}px`;
  let drawn = 0;
  new ResizeObserver(() => {
    const width = Math.floor(plot.clientWidth);
    if (width < 40 || width === drawn) return;
    drawn = width;
    plot.replaceChildren(draw(width));
  }).observe(plot);
  return el("figure", { class: "chart" },
    el("figcaption", {}, el("h3", {}, title), unit && el("span", { class: "quiet" }, unit), about && el("p", { class: "quiet" }, about)),
    plot,
    legend.length > 1 && el("ul", { class: "legend keys" }, ...legend.map(({ name, at }) => el("li", { "data-line": at % 6 }, swatch(at), name))),
    rows.length > 0 && el("details", { class: "figures", "data-key": `table of ${title}` },
      el("summary", {}, "As a table"),
      el("div", { class: "scroller", tabindex: "0", role: "region", "aria-label": `${title}, as a table` },
        el("table", {},
          el("thead", {}, el("tr", {}, ...heads.map((head) => el("th", { scope: "col" }, head)))),
          el("tbody", {}, ...rows.map((row) => el("tr", {}, ...row.map((cell, at) => (at ? el("td", {}, cell) : el("th", { scope: "row" }, cell))))))))));
}

const swatch = (at) => svg("svg", { width: 26, height: 10, "aria-hidden": "true" },
  svg("path", { class: "line", d: "M0 5H26", "stroke-dasharray": DASHES[at % 6] }), svg("path", { class: "marker", d: MARKERS[at % 6](13, 5) }));

// Round numbers that cover [low, high], about `wanted` of them (Heckbert, "Nice numbers for graph labels", 1990).
export function ticks(low, high, wanted = 5) {
  const rough = (high - low || 1) / Math.max(1, wanted);
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * ([1, 2, 5].find((one) => one * power >= rough) ?? 10);
  const found = [];
  for (let at = Math.ceil(low / step - 1e-9); at * step <= high + step * 1e-9; at++) found.push(Number((at * step).toPrecision(12)));
  return found;
}

const tidy = (value) => Number(value.toPrecision(4)).toLocaleString("en", { maximumFractionDigits: 6 });

function axes({ width, height, x, y, label }) {
  const right = width - PAD.right;
  const bottom = height - PAD.bottom;
  return [
    ...y.ticks.filter((value, at) => !at || y.format(value) !== y.format(y.ticks[at - 1])).map((value) => svg("g", { class: "tick" },
      svg("path", { d: `M${PAD.left} ${y.at(value)}H${right}` }),
      text(PAD.left - 7, y.at(value) + 4, y.format(value), "end"))),
    ...x.ticks.map((value) => svg("g", { class: "tick" },
      svg("path", { d: `M${x.at(value)} ${bottom}v4` }),
      text(Math.min(x.at(value), width), bottom + 17, x.format(value), x.at(value) > width - 30 ? "end" : "middle"))),
    svg("path", { class: "axis", d: `M${PAD.left} ${bottom}H${right}` }),
    label && text((PAD.left + right) / 2, height - 4, label, "middle"),
  ];
}

function text(x, y, words, anchor, kind = "label") {
  const node = svg("text", { x, y, "text-anchor": anchor, class: kind });
  node.textContent = words;
  return node;
}

const picture = (width, height, label, ...parts) => svg("svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label }, ...parts);

const linear = (low, high, from, to) => (value) => from + ((value - low) / (high - low || 1)) * (to - from);
const logarithmic = (low, high, from, to) => (value) => linear(Math.log(low), Math.log(high), from, to)(Math.log(value));

// ---------------------------------------------------------------- lines

// series: [{ name, points: [{ x, y, low?, high? }] }], x in milliseconds where `time`. A null y is a gap.
// marks: [{ y, name }], dashed across. y: { low?, high?, format? }.
export function lines({ title, unit, about, series, time = false, log = false, xLabel = "", xHead = xLabel, marks = [], y = {}, height = 240 }) {
  const all = series.flatMap((one) => one.points).filter((point) => point.y !== null);
  const format = y.format ?? tidy;
  const xs = all.map((point) => point.x);
  const ys = [...all.flatMap((point) => [point.y, point.low ?? point.y, point.high ?? point.y]), ...marks.map((mark) => mark.y)];
  const [left, right] = [Math.min(...xs), Math.max(...xs)];
  const low = y.low ?? Math.min(...ys);
  const high = Math.max(y.high ?? Math.max(...ys), low + 1e-9);
  const draw = (width) => {
    const inner = [PAD.left, width - PAD.right];
    const scaled = (log ? logarithmic : linear)(left, right === left ? left + 1 : right, ...inner);
    const clock = time && clockTicks(left, right, Math.floor(width / 90));
    const xAxis = { at: scaled, ticks: time ? clock.at : log ? [...new Set(xs)].sort((a, b) => a - b) : ticks(left, right, width / 90), format: time ? clock.format : tidy };
    if (log) xAxis.ticks = spread(xAxis.ticks, scaled, 34);
    const scale = { at: linear(low, high, height - PAD.bottom, PAD.top), ticks: ticks(low, high, 4), format };
    return picture(width, height, `${title}: ${series.map((one) => one.name).join(", ")}. The table below has the figures.`,
      ...axes({ width, height, x: xAxis, y: scale, label: xLabel }),
      ...series.map((one, at) => line(one, at, xAxis.at, scale.at)),
      ...marks.flatMap((mark) => [
        svg("path", { class: "mark", d: `M${inner[0]} ${scale.at(mark.y)}H${inner[1]}` }),
        text(inner[1], scale.at(mark.y) + (scale.at(mark.y) < PAD.top + 16 ? 15 : -5), mark.name, "end", "label strong"),
      ]));
  };
  const places = [...new Set(xs)].sort((a, b) => a - b);
  const columns = series.map((one) => new Map(one.points.map((point) => [point.x, point])));
  return figure({
    title, unit, about, height, draw,
    legend: series.map((one, at) => ({ name: one.name, at })),
    heads: [time ? "When" : xHead, ...series.map((one) => one.name)],
    rows: places.map((place) => [time ? stamp(place) : tidy(place), ...columns.map((points) => cell(points.get(place), format))]),
  });
}

function cell(point, format) {
  if (!point || point.y === null) return "–";
  return point.low === undefined ? format(point.y) : `${format(point.y)} (${format(point.low)} to ${format(point.high)})`;
}

function line(one, at, x, y) {
  const known = one.points.filter((point) => point.y !== null);
  let pen = "M";
  const path = one.points.map((point) => {
    if (point.y === null) return ((pen = "M"), "");
    const part = `${pen}${x(point.x).toFixed(1)} ${y(point.y).toFixed(1)}`;
    pen = "L";
    return part;
  });
  const banded = known.filter((point) => point.low !== undefined);
  const band = banded.length > 1 && `M${[...banded.map((point) => [point.x, point.high]), ...banded.reverse().map((point) => [point.x, point.low])]
    .map(([px, py]) => `${x(px).toFixed(1)} ${y(py).toFixed(1)}`).join("L")}Z`;
  return svg("g", { "data-line": at % 6 },
    band && svg("path", { class: "band", d: band }),
    svg("path", { class: "line", d: path.join(""), "stroke-dasharray": DASHES[at % 6] }),
    known.length <= 40 && svg("path", { class: "marker", d: known.map((point) => MARKERS[at % 6](x(point.x), y(point.y))).join("") }));
}

function spread(values, at, apart) {
  const kept = [];
  for (const value of values) if (!kept.length || at(value) - at(kept.at(-1)) >= apart) kept.push(value);
  return kept;
}

// Moments at round distances: on the minute, the hour, the day.
function clockTicks(left, right, wanted) {
  const MINUTE = 60_000;
  const steps = [0.25, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 180, 360, 720, 1440, 2880, 10080].map((minutes) => minutes * MINUTE);
  const step = steps.find((one) => (right - left) / one <= Math.max(2, wanted)) ?? steps.at(-1);
  const shift = new Date(left).getTimezoneOffset() * MINUTE;
  const at = [];
  for (let moment = Math.ceil((left - shift) / step) * step + shift; moment <= right; moment += step) at.push(moment);
  const style = step >= 1440 * MINUTE ? { day: "numeric", month: "short" }
    : { hour: "2-digit", minute: "2-digit", ...(step < MINUTE && { second: "2-digit" }) };
  const words = new Intl.DateTimeFormat("en-GB", style);
  return { at, format: (moment) => words.format(new Date(moment)) };
}

const STAMP = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit", second: "2-digit" });
const stamp = (moment) => STAMP.format(new Date(moment));

// ---------------------------------------------------------------- bars

// counts[i] lies between edges[i] and edges[i + 1], or in the bin that is called bins[i]. marks: [{ x, name }], dashed from top to bottom.
export function bars({ title, unit, about, edges, counts, bins = null, xLabel, marks = [], height = 220 }) {
  const total = counts.reduce((sum, one) => sum + one, 0) || 1;
  const share = counts.map((one) => one / total);
  const high = 1.18 * Math.max(...share, 1e-9);  // room for the names of marks
  const format = (value) => `${tidy(100 * value)}\u00a0%`;
  const middle = (at) => (edges[at] + edges[at + 1]) / 2;
  const xAxis = (x, width) => bins
    ? { at: (at) => x(middle(at)), ticks: spread([...bins.keys()], (at) => x(middle(at)), 46), format: (at) => bins[at] }
    : { at: x, ticks: ticks(edges[0], edges.at(-1), width / 80), format: tidy };
  const draw = (width) => {
    const x = linear(edges[0], edges.at(-1), PAD.left, width - PAD.right);
    const y = linear(0, high, height - PAD.bottom, PAD.top);
    return picture(width, height, `${title}: histogram. The table below has the figures.`,
      ...axes({ width, height, x: xAxis(x, width), y: { at: y, ticks: ticks(0, high, 4), format }, label: xLabel }),
      svg("path", { class: "bars", d: share.map((one, at) =>
        one > 0 ? `M${x(edges[at]) + 0.5} ${y(0)}V${Math.min(y(one), y(0) - 1)}H${Math.max(x(edges[at + 1]) - 0.5, x(edges[at]) + 1)}V${y(0)}Z` : "").join("") }),
      ...marks.flatMap((mark) => [
        svg("path", { class: "mark", d: `M${x(mark.x)} ${PAD.top}V${y(0)}` }),
        text(x(mark.x) + (x(mark.x) > width / 2 ? -6 : 6), PAD.top + 12, mark.name, x(mark.x) > width / 2 ? "end" : "start", "label strong"),
      ]));
  };
  return figure({
    title, unit, about, height, draw, heads: [xLabel, "Count", "Share"],
    rows: counts.map((one, at) => [bins?.[at] ?? `${tidy(edges[at])} to ${tidy(edges[at + 1])}`, one.toLocaleString("en"), format(share[at])]),
  });
}

// ---------------------------------------------------------------- a map

// points: [{ x, y, name, group? }], with the number of one of `groups`, at most six; `picked`: those to stand out, [{ x, y, name, place }], in order. What the pointer is over is
// told in `told`.
export function map({ title, unit, about, points, picked, groups = [], told, height = 460 }) {
  const all = [...points, ...picked];
  const bounds = (values) => [Math.min(...values), Math.max(...values)];
  const [left, right] = bounds(all.map((point) => point.x));
  const [low, high] = bounds(all.map((point) => point.y));
  const draw = (width) => {
    const unitLength = Math.min((width - 24) / (right - left || 1), (height - 24) / (high - low || 1));
    const x = (value) => width / 2 + (value - (left + right) / 2) * unitLength;
    const y = (value) => height / 2 - (value - (low + high) / 2) * unitLength;
    const drawnAs = (group, mark) => points.filter((point) => point.group === group).map((point) => mark(x(point.x), y(point.y))).join("");
    const drawn = picture(width, height, `${title}: ${points.length} passages, ${picked.length} of them hits of a search.`,
      svg("path", { class: "dots", d: drawnAs(undefined, (px, py) => `M${px.toFixed(1)} ${py.toFixed(1)}h0`) }),
      ...groups.map((_, at) => svg("g", { "data-line": at }, svg("path", { class: "marker", d: drawnAs(at, MARKERS[at]) }))),
      ...[...picked].reverse().map((point) => svg("g", { class: "hit-dot" },
        svg("circle", { cx: x(point.x), cy: y(point.y), r: 8.5 }), text(x(point.x), y(point.y) + 3.6, point.place, "middle", "place"))));
    drawn.addEventListener("pointermove", (event) => {
      const box = drawn.getBoundingClientRect();
      const [px, py] = [event.clientX - box.left, event.clientY - box.top];
      let [best, nearest] = [null, 14 ** 2];
      for (const point of all) {
        const distance = (x(point.x) - px) ** 2 + (y(point.y) - py) ** 2;
        if (distance < nearest) [best, nearest] = [point, distance];
      }
      told(best);
    });
    drawn.addEventListener("pointerleave", () => told(null));
    return drawn;
  };
  return figure({
    title, unit, about, height, draw, heads: ["Hit", "Passage", "Across", "Up"], legend: groups.map((name, at) => ({ name, at })),
    rows: picked.map((point) => [point.place, point.name, tidy(point.x), tidy(point.y)]),
  });
}
