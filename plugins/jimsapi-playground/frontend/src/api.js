// The HTTP API of the server that this page comes from.

import { serverSent } from "./sse.js";

export const ROOT = document.documentElement.dataset.root;
const KEY = "jimsapi.playground.key";
const ATTEMPTS = 6;
const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/; // the place of a fault in an answer; a person has no use for it

export class ApiError extends Error {
  constructor(status, detail) {
    super(detail);
    this.status = status;
  }
}

let key = stored();

// The key is in memory, and in the storage of this tab if the browser allows it, so that a reload does not ask again.
function stored() {
  try {
    return sessionStorage.getItem(KEY) ?? "";
  } catch {
    return "";
  }
}

export function hasKey() {
  return key !== "";
}

// Returns whether this is another key than before.
export function setKey(text) {
  const before = key;
  key = text.trim().replace(/^bearer\s+/i, "");
  try {
    if (key) sessionStorage.setItem(KEY, key);
    else sessionStorage.removeItem(KEY);
  } catch {
    // the key stays in memory
  }
  return key !== before;
}

export function urlOf(path, query = {}) {
  const given = Object.entries(query).filter(([, value]) => value !== null && value !== undefined);
  const text = String(new URLSearchParams(given));
  return ROOT + path + (text ? `?${text}` : "");
}

// Returns the response. Throws `ApiError` with the server's detail if it is an error.
export async function request(method, path, { query, json, body, headers = {}, signal } = {}) {
  const sent = { ...headers };
  if (key) sent.authorization = `Bearer ${key}`;
  if (json !== undefined) sent["content-type"] = "application/json";
  const content = json === undefined ? body : JSON.stringify(json);
  const response = await fetch(urlOf(path, query), { method, headers: sent, body: content, signal });
  if (!response.ok) throw new ApiError(response.status, await detailOf(response));
  return response;
}

export async function getJson(path, query) {
  return (await request("GET", path, { query })).json();
}

async function detailOf(response) {
  const text = await response.text();
  try {
    const { detail } = JSON.parse(text);
    if (typeof detail === "string") return detail;
    return detail.map(({ loc, msg }) => (UUID.test(loc?.at(-1)) ? msg : `${loc?.at(-1) ?? "request"}: ${msg}`)).join("; ");
  } catch {
    return text || `The server answered with ${response.status}`;
  }
}

// A text that nobody else has.
function newIdempotencyKey() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

// Sends a message and yields the items of its stream as {name, data}. If the connection breaks, it goes on where it
// broke: before the run began by the same idempotency key, and later by the identifier of the last item.
export function converse(message) {
  const headers = { "idempotency-key": newIdempotencyKey() };
  return follow(null, () => request("POST", "/api/v1/chat/stream", { json: message, headers }));
}

const MAY_PASS = [429, 502, 503, 504]; // a server that restarts, or the proxy before it

export async function* follow(runId, begin) {
  let run = runId;
  let last = null;
  let reason = "The connection to the server was lost";
  for (let attempt = 0; attempt < ATTEMPTS; attempt += 1) {
    if (attempt) {
      yield { name: "reconnecting", data: {} };
      await new Promise((done) => setTimeout(done, 200 * 2 ** attempt));
    }
    try {
      const headers = last === null ? {} : { "last-event-id": last };
      const response = await (run === null ? begin() : request("GET", `/api/v1/runs/${run}/stream`, { headers }));
      run = response.headers.get("x-run-id") ?? run;
      if (response.status === 204) return;
      for await (const item of serverSent(response.body)) {
        if (item.name === "error" && item.id === null) {
          reason = item.data.detail; // the stream has ended, and the run has not
          break;
        }
        attempt = 0;
        last = item.id ?? last;
        if (item.name === "started") run = item.data.run_id;
        yield item;
        if (item.name === "result" || item.name === "error") return;
      }
    } catch (error) {
      if (error instanceof ApiError && !MAY_PASS.includes(error.status)) throw error;
      reason = error.message;
    }
  }
  throw new Error(reason);
}
