// A page that is loaded again: {sdk, api, headers, id, turns} -> what it showed before, and what it is given afterwards,
// as the SDK's own check of stored messages accepts it.

import { openChat, scenario } from "./chat.mjs";

const { validateUIMessages } = await import(scenario.sdk);
const chat = await openChat(scenario);
for (const text of scenario.turns) await chat.sendMessage({ text });
const url = `${scenario.api}/${encodeURIComponent(scenario.id)}/messages`;
const given = await (await fetch(url, { headers: scenario.headers })).json();
const messages = await validateUIMessages({ messages: given });
console.log(JSON.stringify({ before: chat.told().messages, messages }));
