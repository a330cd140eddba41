// A page whose answer is cancelled by its name: {sdk, api, headers, id, holding, runs}.

import { openChat, scenario } from "./chat.mjs";

const chat = await openChat(scenario);
const started = new Promise((resolve) => (chat.heard = resolve));
const held = chat.sendMessage({ text: scenario.holding });
await started;
const { headers } = scenario;
const { id } = chat.messages.at(-1); // the answer is named as its run is
const answer = await fetch(`${scenario.runs}/${id}/cancel`, { method: "POST", headers });
await held;
console.log(JSON.stringify({ cancelled: answer.status, told: chat.told() }));
