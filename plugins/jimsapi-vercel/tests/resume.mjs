// A page that is loaded again while its answer is under way: {sdk, api, headers, id, holding, release, next}.
// `release` is a message of another chat that lets the held answer go on; `next` is then said in the first chat.

import { openChat, scenario } from "./chat.mjs";

const first = await openChat(scenario);
const started = new Promise((resolve) => (first.heard = resolve));
const held = first.sendMessage({ text: scenario.holding });
await started;
if (scenario.leaves) {
  await first.stop();
  await held;
}

const again = await openChat(scenario);
again.messages = first.messages.slice(0, 1);
const resumed = new Promise((resolve) => (again.heard = resolve));
const reading = again.resumeStream();
await resumed;

const other = await openChat(scenario, "other");
await other.sendMessage({ text: scenario.release });
await Promise.all([held, reading]);

const afterwards = await openChat(scenario);
await afterwards.resumeStream();

const told = structuredClone({ first: first.told(), again: again.told(), afterwards: afterwards.told() });
await again.sendMessage({ text: scenario.next });
console.log(JSON.stringify({ ...told, next: again.told() }));
