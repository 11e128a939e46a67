/** Client of Azimuth. The shapes of requests and answers are generated from the service's OpenAPI document. */

import type { paths } from "./schema.js";

type Method = "get" | "put" | "post" | "patch" | "delete";
type Content<T> = T extends { content: { "application/json": infer Shape } } ? Shape : never;
type Operation<Path extends keyof paths, M extends Method> = NonNullable<paths[Path][M]>;

/** What a route takes as its body. */
export type Body<Path extends keyof paths, M extends Method = "post"> =
  Operation<Path, M> extends { requestBody?: infer Request } ? Content<NonNullable<Request>> : never;
/** What a route answers with 200. */
export type Answer<Path extends keyof paths, M extends Method = "post"> =
  Operation<Path, M> extends { responses: { 200: infer Response } } ? Content<Response> : never;

type Collections = "/v1/collections";
type One = `${Collections}/{collection}`;

export type Settings = Body<One, "put">;
export type Collection = Answer<One, "get">;
export type Document = Body<`${One}/documents`>["documents"][number];
export type StoredDocument = Answer<`${One}/documents/{id}`, "get">;
export type Written = Answer<`${One}/documents`>;
export type Search = Body<`${One}/search`>;
export type SearchAnswer = Answer<`${One}/search`>;
export type Suggestion = Answer<`${One}/suggest`>["suggestions"][number];
export type Hit = SearchAnswer["hits"][number];
export type Filter = NonNullable<Search["filter"]>;
export type Patch = Body<`${One}/documents/{id}`, "patch">;
export type Deleted = Answer<`${One}/documents/delete`>;
export type KeySettings = Body<"/v1/keys">;
export type Key = Answer<"/v1/keys", "get">["keys"][number];
export type NewKey = Answer<"/v1/keys/{id}/rotate">;

/** The service answered with an error: a problem document (RFC 9457), where it is one. */
export class ApiError extends Error {
  override readonly name = "ApiError";

  constructor(
    readonly status: number,
    detail: string,
    /** The end of the problem's type, such as `collection-not-found`. */
    readonly kind = "",
    readonly errors: readonly { field: string; message: string }[] = [],
    readonly requestId: string | null = null,
  ) {
    super(`${status}: ${detail}`);
  }
}

export interface Options {
  /** An API key. */
  key?: string;
  /** How often a request is repeated that finds no room, or whose connection broke. */
  retries?: number;
  /** Milliseconds until an answer must have come. */
  timeout?: number;
  /** Instead of the `fetch` of the runtime. */
  fetch?: typeof fetch;
}

export interface Imported {
  sent: number;
  created: number;
  updated: number;
  unchanged: number;
  /** `line` counts from 1 over the whole import. */
  errors: { line: number; error: string }[];
}

interface Request {
  body?: unknown;
  /** Lines of JSON instead of `body`. */
  lines?: string;
  query?: Record<string, string | number | boolean | readonly string[] | undefined>;
  /** Whether it may arrive twice, so that it is repeated after a broken connection. Default: what is no POST. */
  repeatable?: boolean;
}

const BATCH_DOCUMENTS = 500;
const BATCH_CHARACTERS = 4 * 2 ** 20;
const FETCH = 1_000;
const LONGEST_PAUSE = 60_000;
const BUSY = new Set([429, 502, 503, 504]);

export class Azimuth {
  readonly #url: string;
  readonly #options: Required<Omit<Options, "key">>;
  readonly #headers: Record<string, string>;

  constructor(url: string, options: Options = {}) {
    const { key, ...others } = options;
    this.#url = url.replace(/\/+$/, "");
    this.#options = { retries: 5, timeout: 60_000, fetch: globalThis.fetch.bind(globalThis), ...others };
    this.#headers = key === undefined ? {} : { Authorization: `Bearer ${key}` };
  }

  /** The JSON of a 2xx answer to any request. ApiError for any other; what `fetch` throws where nobody answers. */
  async request<T = unknown>(method: string, path: string, request: Request = {}): Promise<T> {
    const repeatable = request.repeatable ?? method !== "POST";
    const url = new URL(this.#url + path);
    for (const [name, value] of Object.entries(request.query ?? {}))
      for (const one of Array.isArray(value) ? value : value === undefined ? [] : [value]) url.searchParams.append(name, String(one));
    const headers = { ...this.#headers, ...contentType(request) };
    const body = request.lines ?? (request.body === undefined ? null : JSON.stringify(request.body));
    for (let attempt = 0; ; attempt++) {
      let pause = Math.min(LONGEST_PAUSE, 100 * 2 ** attempt);
      try {
        const signal = AbortSignal.timeout(this.#options.timeout);
        const answer = await this.#options.fetch(url, { method, headers, body, signal });
        if (answer.ok) return (answer.status === 204 ? undefined : await answer.json()) as T;
        const may = BUSY.has(answer.status) && (repeatable || answer.status === 429);
        if (!may || attempt >= this.#options.retries) throw await apiError(answer);
        const told = answer.headers.get("Retry-After");
        if (told !== null && Number(told) >= 0) pause = Math.min(LONGEST_PAUSE, 1_000 * Number(told));
        await answer.body?.cancel();
      } catch (error) {
        const broken = error instanceof TypeError; // what `fetch` throws where there is no connection
        if (!broken || !repeatable || attempt >= Math.min(2, this.#options.retries)) throw error;
      }
      await new Promise((resume) => setTimeout(resume, pause * (1 + Math.random() / 4)));
    }
  }

  async collections(): Promise<Collection[]> {
    return (await this.request<{ collections: Collection[] }>("GET", "/v1/collections")).collections;
  }

  /** Settings, counts and versions. */
  collection(collection: string): Promise<Collection> {
    return this.request("GET", pathOf(collection));
  }

  /** Create it, or change the settings that are given. */
  putCollection(collection: string, settings: Settings = {}): Promise<Collection> {
    return this.request("PUT", pathOf(collection), { body: settings });
  }

  /** The collection; it is created with `settings` if it does not exist, and left unchanged if it does. */
  async ensureCollection(collection: string, settings: Settings = {}): Promise<Collection> {
    try {
      return await this.collection(collection);
    } catch (error) {
      if (!(error instanceof ApiError) || error.status !== 404) throw error;
      return this.putCollection(collection, settings);
    }
  }

  /** With everything in it. */
  deleteCollection(collection: string): Promise<void> {
    return this.request("DELETE", pathOf(collection), { query: { confirm: collection } });
  }

  /** Write all of them or none. `wait`: until they can be found. Many documents: `importDocuments`. */
  write(
    collection: string,
    documents: readonly Document[],
    { wait = false, ifExists = "replace" }: { wait?: boolean; ifExists?: "replace" | "skip" | "fail" } = {},
  ): Promise<Written> {
    const query = { wait, if_exists: ifExists };
    const request = { query, body: { documents }, repeatable: ifExists !== "fail" };
    return this.request("POST", `${pathOf(collection)}/documents`, request);
  }

  /** Send any number of documents; those that are refused do not stop the others. `progress`: after each commit. */
  async importDocuments(
    collection: string,
    documents: Iterable<Document> | AsyncIterable<Document>,
    progress: (soFar: Imported) => void = () => {},
  ): Promise<Imported> {
    const result: Imported = { sent: 0, created: 0, updated: 0, unchanged: 0, errors: [] };
    let lines: string[] = [];
    let size = 0;
    const send = async () => {
      const request = { lines: lines.join(""), repeatable: true };
      const outcome = await this.request<Written>("POST", `${pathOf(collection)}/documents`, request);
      for (const { line, error } of outcome.errors ?? []) result.errors.push({ line: line + result.sent, error });
      for (const name of ["created", "updated", "unchanged"] as const) result[name] += outcome[name];
      result.sent += lines.length;
      [lines, size] = [[], 0];
      progress(result);
    };
    for await (const document of documents) {
      const line = `${JSON.stringify(document)}\n`;
      lines.push(line);
      size += line.length;
      if (lines.length >= BATCH_DOCUMENTS || size >= BATCH_CHARACTERS) await send();
    }
    if (lines.length > 0) await send();
    return result;
  }

  get(collection: string, id: string): Promise<StoredDocument> {
    return this.request("GET", `${pathOf(collection)}/documents/${encodeURIComponent(id)}`);
  }

  /** Those of the documents that exist, in the order of the ids. */
  async fetch(collection: string, ids: readonly string[]): Promise<StoredDocument[]> {
    const found: StoredDocument[] = [];
    for (let at = 0; at < ids.length; at += FETCH) {
      const request = { body: { ids: ids.slice(at, at + FETCH) }, repeatable: true };
      const path = `${pathOf(collection)}/documents/fetch`;
      found.push(...(await this.request<{ documents: StoredDocument[] }>("POST", path, request)).documents);
    }
    return found;
  }

  /** All documents that pass the filter, in the order of their ids, read page by page. */
  async *documents(collection: string, filter: Filter = {}): AsyncGenerator<StoredDocument> {
    let cursor: string | undefined;
    do {
      const query = { limit: 100, filter: JSON.stringify(filter), cursor };
      const page: Answer<`${One}/documents`, "get"> = await this.request("GET", `${pathOf(collection)}/documents`, { query });
      yield* page.documents;
      cursor = page.next_cursor ?? undefined;
    } while (cursor !== undefined);
  }

  /** How many documents pass the filter, exactly. */
  async count(collection: string, filter: Filter = {}): Promise<number> {
    const request = { body: { filter }, repeatable: true };
    return (await this.request<{ count: number }>("POST", `${pathOf(collection)}/count`, request)).count;
  }

  /** Change title, text or metadata by a JSON merge patch: objects are merged, null removes. */
  patch(collection: string, id: string, changes: Patch): Promise<unknown> {
    return this.request("PATCH", `${pathOf(collection)}/documents/${encodeURIComponent(id)}`, { body: changes });
  }

  /** Delete at most 1,000 documents by their ids, or those that pass a filter. */
  delete(collection: string, which: { ids: readonly string[] } | { filter: Filter }): Promise<Deleted> {
    return this.request("POST", `${pathOf(collection)}/documents/delete`, { body: which, repeatable: true });
  }

  search(collection: string, search: string | Search): Promise<SearchAnswer> {
    return this.request("POST", `${pathOf(collection)}/search`, { body: asSearch(search), repeatable: true });
  }

  /** Several searches in one request; texts that they share are encoded once. */
  async searchBatch(collection: string, searches: readonly (string | Search)[]): Promise<SearchAnswer[]> {
    const request = { body: { searches: searches.map(asSearch) }, repeatable: true };
    return (await this.request<{ results: SearchAnswer[] }>("POST", `${pathOf(collection)}/search/batch`, request)).results;
  }

  /** Say whether a query was answered, and by which documents. The newest mark of a query counts. */
  mark(collection: string, mark: Body<`${One}/feedback`>): Promise<Answer<`${One}/feedback`>> {
    return this.request("POST", `${pathOf(collection)}/feedback`, { body: mark, repeatable: true });
  }

  /** How a text that is being typed may go on. */
  async suggest(collection: string, query: string, options: { k?: number; filter?: Filter } = {}): Promise<Suggestion[]> {
    const request = { body: { query, ...options }, repeatable: true };
    return (await this.request<{ suggestions: Suggestion[] }>("POST", `${pathOf(collection)}/suggest`, request)).suggestions;
  }

  /** Documents that are similar to one document. */
  async similar(collection: string, id: string, options: { k?: number; filter?: Filter } = {}): Promise<Hit[]> {
    const path = `${pathOf(collection)}/similar/${encodeURIComponent(id)}`;
    return (await this.request<SearchAnswer>("POST", path, { body: options, repeatable: true })).hits;
  }

  /** The API keys, also those that have ended. All about keys is for administrators. */
  async keys(): Promise<Key[]> {
    return (await this.request<{ keys: Key[] }>("GET", "/v1/keys")).keys;
  }

  /** The answer has the `secret`, this once. The first key must be an administrator's. */
  createKey(settings: KeySettings = {}): Promise<NewKey> {
    return this.request("POST", "/v1/keys", { body: settings });
  }

  /** Give it another secret; the former one works for `overlap` more (`"0"`: not at all). */
  rotateKey(id: string, overlap = "1h"): Promise<NewKey> {
    return this.request("POST", `/v1/keys/${encodeURIComponent(id)}/rotate`, { body: { overlap } });
  }

  revokeKey(id: string): Promise<void> {
    return this.request("DELETE", `/v1/keys/${encodeURIComponent(id)}`);
  }
}

function pathOf(collection: string): string {
  return `/v1/collections/${encodeURIComponent(collection)}`;
}

function asSearch(search: string | Search): Search {
  return typeof search === "string" ? { query: search } : search;
}

function contentType(request: Request): Record<string, string> {
  if (request.lines !== undefined) return { "Content-Type": "application/x-ndjson" };
  return request.body === undefined ? {} : { "Content-Type": "application/json" };
}

async function apiError(answer: Response): Promise<ApiError> {
  const text = await answer.text();
  try {
    const { type, detail, title, errors, request_id } = JSON.parse(text);
    return new ApiError(answer.status, detail ?? title, String(type).split(":").at(-1), errors, request_id);
  } catch {
    return new ApiError(answer.status, text.slice(0, 300) || answer.statusText);
  }
}
