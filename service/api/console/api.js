// The service's HTTP API. The key, where one is asked for, is kept until the tab is closed.

import { el } from "./dom.js";

const KEY = "azimuth-key";

export class Refused extends Error {
  constructor(problem, status) {
    super(problem.detail || problem.title || `The service answered ${status}.`);
    this.status = status;
    this.problem = problem;
    this.kind = String(problem.type ?? "").split(":").pop();
  }
}

export async function call(path, options = {}) {
  const response = await answered(path, options);
  return response.status === 204 ? null : response.json();
}

// An image of a document, small. It is fetched, as an address of an image could not carry the key.
export function thumbnail(name, one) {
  if (!one.image) return null;
  const node = el("img", { class: "thumbnail", alt: `Image of ${one.title || one.id}` });
  answered(`${collectionPath(name)}/${one.image}?preview=true`).then(async (response) => {
    node.src = URL.createObjectURL(await response.blob());
    node.addEventListener("load", () => URL.revokeObjectURL(node.src), { once: true });
  }, () => node.replaceWith("(the image is gone)"));
  return node;
}

// Of this process, as Prometheus reads them; empty where the operator closed them, or the key is not for all collections.
export async function readMetrics() {
  try {
    return await (await answered("metrics")).text();
  } catch (error) {
    if (error.status === 403 || error.status === 404) return "";
    throw error;
  }
}

async function answered(path, options = {}) {
  const key = sessionStorage.getItem(KEY);
  const headers = { ...(key && { Authorization: `Bearer ${key}` }), ...(typeof options.body === "string" && { "Content-Type": "application/json" }) };
  const response = await fetch(path, { ...options, headers });
  if (response.ok) return response;
  throw new Refused(await response.json().catch(() => ({})), response.status);
}

export const post = (path, body) => call(path, { method: "POST", ...(body && { body: JSON.stringify(body) }) });

export const collectionPath = (name) => `v1/collections/${encodeURIComponent(name)}`;

export const hasKey = () => sessionStorage.getItem(KEY) !== null;
export const useKey = (key) => sessionStorage.setItem(KEY, key);
export const forgetKey = () => sessionStorage.removeItem(KEY);
