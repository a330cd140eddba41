// The view that the part of the address after # names. Everything else is the start, whatever it is.

const THREAD = /^#\/threads\/([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})(\/log)?$/i;
const LISTS = { "#/runs": "runs", "#/contacts": "contacts" };

export const RUNS = "#/runs";
export const CONTACTS = "#/contacts";

// Returns {threadId, view}: the view is chat or log of a thread, or one of the lists, which have no thread.
export function routeOf(hash) {
  if (Object.hasOwn(LISTS, hash)) return { threadId: null, view: LISTS[hash] };
  const found = THREAD.exec(hash);
  if (!found) return { threadId: null, view: "chat" };
  return { threadId: found[1].toLowerCase(), view: found[2] === undefined ? "chat" : "log" };
}

export function hashOf(threadId, log = false) {
  return threadId ? `#/threads/${threadId}${log ? "/log" : ""}` : "#/";
}
