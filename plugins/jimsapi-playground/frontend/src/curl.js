// The request of a message as a command. The key is never in it: the shell puts it in.

import { hasKey, urlOf } from "./api.js";

const quoted = (text) => `'${text.replaceAll("'", `'\\''`)}'`;

export function curlOf(request) {
  const lines = [`curl -sN ${quoted(new URL(urlOf("/api/v1/chat/stream"), location.href).href)}`];
  if (hasKey()) lines.push('-H "Authorization: Bearer $JIMS_KEY"');
  lines.push("-H 'Content-Type: application/json'", `-d ${quoted(JSON.stringify(request))}`);
  return lines.join(" \\\n  ");
}
