// Uses the types that openapi-typescript makes of the OpenAPI document; `tsc --strict` checks it.
import type { components, operations, paths } from "./schema.js";

const search: components["schemas"]["SearchBody"] = { query: "a cat", sort: ["-year"], min_score: { cosine: 0.3 } };
const settings: components["schemas"]["CollectionBody"] = { indexed: ["year"] };
type Answer = operations["search"]["responses"][200]["content"]["application/json"];
type Route = paths["/v1/collections/{collection}/search"]["post"];

export const cosines = (answer: Answer): (number | null)[] => answer.hits.map((hit) => hit.cosine);
export const bodies: [Route["requestBody"]["content"]["application/json"], typeof settings] = [search, settings];
