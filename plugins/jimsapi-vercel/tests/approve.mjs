// A page on which a person approves: {sdk, api, headers, id, approves: true, steps} -> what it shows after each step, and
// how many requests it sent. A step is `{say}`, `{approve: true | false}`, or `{reload: true}`: a page that is loaded
// again has the messages that the server shows.

import { openChat, scenario } from "./chat.mjs";

const { isToolUIPart, isToolOrDynamicToolUIPart = isToolUIPart, validateUIMessages } = await import(scenario.sdk);
let requests = 0;
const { fetch } = globalThis;
globalThis.fetch = (...sent) => ((requests += 1), fetch(...sent));

let chat = await openChat(scenario);
const steps = [];
for (const { say, approve, reload } of scenario.steps) {
  requests = 0;
  if (say) await chat.sendMessage({ text: say });
  if (approve !== undefined) {
    const [part] = chat.messages.at(-1).parts.filter(isToolOrDynamicToolUIPart)
      .filter((part) => part.state === "approval-requested");
    const answered = new Promise((resolve) => (chat.answered = resolve)); // the SDK sends it by itself
    await chat.addToolApprovalResponse({ id: part.approval.id, approved: approve });
    await answered;
  }
  if (reload) {
    chat = await openChat(scenario);
    const url = `${scenario.api}/${encodeURIComponent(scenario.id)}/messages`;
    const messages = await (await fetch(url, { headers: scenario.headers })).json();
    chat.messages = messages.length ? await validateUIMessages({ messages }) : [];
    await chat.resumeStream();
  }
  await new Promise((done) => setTimeout(done)); // what the SDK sends after an answer, it sends at once
  const { status, error, messages } = chat.told();
  steps.push(structuredClone({ status, error, messages, requests }));
}
console.log(JSON.stringify(steps));
