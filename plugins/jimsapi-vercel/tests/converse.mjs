// A whole conversation: {sdk, api, headers, id, turns} -> what the page would show after each turn.

import { openChat, scenario } from "./chat.mjs";

const chat = await openChat(scenario);
const turns = [];
for (const text of scenario.turns) {
  await chat.sendMessage({ text });
  turns.push(structuredClone(chat.told()));
}
console.log(JSON.stringify(turns));
