// The text that /metrics answers with, and quantiles of its histograms.

const LINE = /^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)/;
const LABEL = /(\w+)="((?:[^"\\]|\\.)*)"/g;

// [{ name, labels, value }]
export function parse(text) {
  const samples = [];
  for (const line of text.split("\n")) {
    const found = line.startsWith("#") ? null : LINE.exec(line);
    if (!found) continue;
    const labels = Object.fromEntries([...(found[2] ?? "").matchAll(LABEL)].map(([, name, value]) => [name, value.replace(/\\(.)/g, (_, one) => (one === "n" ? "\n" : one))]));
    samples.push({ name: found[1], labels, value: Number(found[3].replace("Inf", "Infinity")) });
  }
  return samples;
}

export const matching = (samples, name, labels = {}) =>
  samples.filter((one) => one.name === name && Object.entries(labels).every(([label, value]) => one.labels[label] === value));

export const sum = (samples) => samples.reduce((total, one) => total + one.value, 0);

// How many observations there were up to each bound, over all that match: [[bound, count]], the last one of Infinity.
export function histogram(samples, name, labels) {
  const counts = new Map();
  for (const one of matching(samples, `${name}_bucket`, labels)) {
    const bound = Number(one.labels.le.replace("+Inf", "Infinity"));
    counts.set(bound, (counts.get(bound) ?? 0) + one.value);
  }
  return [...counts].sort((a, b) => a[0] - b[0]);
}

export const between = (before, after) => after.map(([bound, count], at) => [bound, count - (before[at]?.[1] ?? 0)]);

// Is this quantile larger than the last bound, so that nothing more is known of it?
export function beyondBounds(buckets, share) {
  return buckets.length > 1 && share * buckets.at(-1)[1] > buckets.at(-2)[1];
}

// Linear within a bucket, as Prometheus takes it; null of no observations.
export function quantile(buckets, share) {
  const total = buckets.at(-1)?.[1] ?? 0;
  if (total <= 0) return null;
  const wanted = share * total;
  const at = buckets.findIndex(([, count]) => count >= wanted);
  const [bound, count] = buckets[at];
  const [below, before] = at ? buckets[at - 1] : [0, 0];
  if (bound === Infinity) return below;
  return below + ((bound - below) * (wanted - before)) / (count - before || 1);
}
