// The TypeScript client against a service: AZIMUTH_URL, AZIMUTH_KEY. What it finds is printed as JSON.
import { ApiError, Azimuth, type Document } from "./index.js";

declare const process: { env: Record<string, string | undefined> };
const { AZIMUTH_URL: url = "", AZIMUTH_KEY: key = "" } = process.env;
const collection = "typescript";
let failures = 0;
const sometimes: typeof fetch = async (input, init) => {
  failures += 1;
  if (failures % 4 === 1) throw new TypeError("fetch failed");
  if (failures % 4 === 2) return new Response("{}", { status: 429, headers: { "Retry-After": "0" } });
  return fetch(input, init);
};
const azimuth = new Azimuth(`${url}/`, { key, fetch: sometimes });

async function* generated(): AsyncGenerator<Document> {
  for (let n = 0; n < 1_200; n++) yield { id: `d/${n}`, text: n === 7 ? "" : `fact number ${n}`, metadata: { n } };
}

await azimuth.ensureCollection(collection, { embedder: "hashing:32" });
const before = await azimuth.putCollection(collection, { language: "de" });
const seen: number[] = [];
const imported = await azimuth.importDocuments(collection, generated(), ({ sent }) => seen.push(sent));
const written = await azimuth.write(collection, [{ id: "x", title: "a dog barks" }], { wait: true });
let listed = 0;
for await (const document of azimuth.documents(collection, { n: { $lt: 250 } })) listed += document.id ? 1 : 0;
const answer = await azimuth.search(collection, { query: "dog", k: 1, mode: "lexical", include: ["metadata"] });
const [first, second] = await azimuth.searchBatch(collection, ["dog", { query: "dog", filter: { n: 3 } }]);
const found = await azimuth.fetch(collection, ["d/3", "none", "x"]);
await azimuth.patch(collection, "d/3", { metadata: { n: -3 } });
const patched = await azimuth.get(collection, "d/3");
const similar = await azimuth.similar(collection, "x", { k: 2 });
const suggested = await azimuth.suggest(collection, "a do", { k: 1 });
const mark = await azimuth.mark(collection, { query: "dog", answered: true, documents: ["x"] });
const deleted = await azimuth.delete(collection, { filter: { n: { $gte: 0 } } });
const left = await azimuth.count(collection);

async function failure(work: Promise<unknown>): Promise<unknown> {
  try {
    return await work;
  } catch (error) {
    if (!(error instanceof ApiError)) return String(error);
    const { status, kind, message, errors } = error;
    return { status, kind, message, fields: errors.map(({ field }) => field) };
  }
}
const failed = [
  await failure(azimuth.search("none", "dog")),
  await failure(azimuth.search(collection, { query: "dog", k: 0 })),
  await failure(new Azimuth(url, { key: "wrong" }).collections()),
];
const steady = new Azimuth(url, { key }); // what makes a secret is not repeated
const made = await steady.createKey({ name: "typescript", role: "write", expires: "1h" });
const rotated = await steady.rotateKey(made.id, "0");
const keys = (await azimuth.keys()).filter(({ id }) => id === made.id).slice(0, 2).map(({ active }) => active);
await azimuth.revokeKey(rotated.id);
await azimuth.deleteCollection(collection);
const names = (await azimuth.collections()).map(({ name }) => name);
console.log(JSON.stringify({
  language: before.settings.language, seen, imported, created: written.created, listed, left, deleted, failed, names,
  hit: answer.hits[0]?.id, batch: [first?.hits[0]?.id, second?.hits.map(({ id }) => id)], similar: similar.length,
  found: found.map(({ id }) => id), patched: patched.metadata,
  suggested: suggested.map(({ text }) => text), marked: [mark.query, mark.documents],
  keys, renewed: made.secret !== rotated.secret,
}));
