// A conversation by AG-UI's own client: {client, url, headers, threadId, turns, leaveAt, aside} -> {runs, messages}.
// The first run is left at the first event of the type `leaveAt`; then `aside` is said in another thread. With `reload`
// another agent, which has no messages, asks for those of the thread: `reloaded`.

const scenario = JSON.parse(process.argv[2]);
console.error = () => {}; // what it writes there it throws too
const { HttpAgent } = await import(scenario.client);

const openThread = (threadId) => new HttpAgent({ url: scenario.url, headers: scenario.headers, threadId });

async function say(agent, content, leaveAt) {
  agent.addMessage({ id: crypto.randomUUID(), role: "user", content });
  const run = { events: [], error: null };
  const onEvent = ({ event }) => {
    const { rawEvent, ...told } = event; // of a run that was left it is an exception
    run.events.push(told);
    if (event.type === leaveAt) agent.abortRun();
  };
  try {
    await agent.runAgent({}, { onEvent });
  } catch (error) {
    run.error = { message: error.message, status: error.status, payload: error.payload };
  }
  return run;
}

const agent = openThread(scenario.threadId);
const runs = [];
for (const [turn, content] of scenario.turns.entries()) {
  runs.push(await say(agent, content, turn === 0 ? scenario.leaveAt : undefined));
  if (turn === 0 && scenario.aside) await say(openThread("aside"), scenario.aside);
}
let reloaded = null;
if (scenario.reload) {
  const again = openThread(scenario.threadId);
  await again.runAgent({});
  reloaded = again.messages;
}
console.log(JSON.stringify({ runs, messages: agent.messages, reloaded }));
