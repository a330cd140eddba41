// A conversation by EventSource, which can only GET: each message begins a run, whose stream is then watched.

const NAMES = ["started", "status", "delta", "event", "result", "gap"];

// Returns what was told of each message. With `stay` nobody closes the stream of the first one; `settled` says how it
// ended.
export async function converse(EventSource, { url, headers, contact, messages, stay }, options) {
  const turns = [];
  let thread, settled;
  for (const message of messages) {
    const begun = await fetch(`${url}/api/v1/runs`, {
      method: "POST",
      headers: { ...headers, "content-type": "application/json" },
      body: JSON.stringify({ contact_id: contact, message, thread_id: thread }),
    });
    if (begun.status !== 202) throw new Error(`${begun.status} ${await begun.text()}`);
    const { run_id, thread_id } = await begun.json();
    thread = thread_id;
    const source = new EventSource(`${url}/api/v1/runs/${run_id}/stream`, options);
    turns.push(await told(source));
    if (stay && !settled) settled = ended(source);
    else source.close();
  }
  return { turns, settled: await settled };
}

function told(source) {
  const events = [];
  return new Promise((resolve, reject) => {
    const hear = (event) => {
      events.push([event.type, JSON.parse(event.data), event.lastEventId]);
      if (event.type === "result" || event.type === "error") resolve(events);
    };
    for (const name of NAMES) source.addEventListener(name, hear);
    // The name stands for two things: what the server says has data, a connection that is lost has none.
    source.addEventListener("error", (event) => {
      if (event.data !== undefined) hear(event);
      else if (source.readyState === source.CLOSED) reject(new Error(`closed after ${JSON.stringify(events)}`));
    });
  });
}

// It comes back for more, is told that there is none, and stops.
function ended(source) {
  const more = [];
  for (const name of NAMES) source.addEventListener(name, (event) => more.push(event.type));
  return new Promise((resolve) => {
    source.addEventListener("error", (event) => {
      if (event.data !== undefined) more.push(event.type);
      if (source.readyState === source.CLOSED) resolve({ closed: true, more });
    });
  });
}
