// A page that changes its conversation: {client, url, headers, threadId, steps} -> the messages after each step.
// A step is `{say}`, or `{keep, say?}`: the first `keep` messages stay, and the agent runs again, after `say` if it is
// there. After `{reload: true}` another agent has the messages that the server shows.

const scenario = JSON.parse(process.argv[2]);
console.error = () => {}; // what it writes there it throws too
const { HttpAgent } = await import(scenario.client);

const open = () => new HttpAgent({ url: scenario.url, headers: scenario.headers, threadId: scenario.threadId });

let agent = open();
const shown = [];
for (const { keep, say, reload } of scenario.steps) {
  if (reload) agent = open();
  if (keep !== undefined) agent.setMessages(agent.messages.slice(0, keep));
  if (say) agent.addMessage({ id: crypto.randomUUID(), role: "user", content: say });
  await agent.runAgent({});
  shown.push(agent.messages.map(({ content }) => content));
}
console.log(JSON.stringify(shown));
