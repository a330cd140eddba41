// The conversation by the package `eventsource`, whose `fetch` option is where a token goes.

import { EventSource } from "eventsource";
import { converse } from "./event_source.mjs";

const scenario = JSON.parse(process.argv[2]);
const options = {
  fetch: (input, init) => fetch(input, { ...init, headers: { ...init.headers, ...scenario.headers } }),
};
// While it waits to come back it does not keep Node from ending.
const awake = setInterval(() => {}, 60_000);
console.log(JSON.stringify(await converse(EventSource, scenario, options)));
clearInterval(awake);
