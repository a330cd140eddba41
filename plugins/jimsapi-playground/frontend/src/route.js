// The view that the part of the address after # names. Everything else is the start, whatever it is.

const THREAD = /^#\/threads\/([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})(\/log)?$/i;

export function routeOf(hash) {
  const found = THREAD.exec(hash);
  return found ? { threadId: found[1].toLowerCase(), log: found[2] !== undefined } : { threadId: null, log: false };
}

export function hashOf(threadId, log = false) {
  return threadId ? `#/threads/${threadId}${log ? "/log" : ""}` : "#/";
}
