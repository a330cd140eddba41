// A conversation by fetch, which can POST and send a token. A stream that breaks is asked for again, by the same request:
// its key makes that the same run, and the last event's id says where to go on. (When the connection is lost, a browser
// drops what has come and was not read, so that there may be no event yet that names the run.)

const ATTEMPTS = 5;

export async function converse({ headers, contact, messages }) {
  const turns = [];
  let thread;
  for (const message of messages) {
    const request = {
      method: "POST",
      headers: { ...headers, "content-type": "application/json", "idempotency-key": crypto.randomUUID() },
      body: JSON.stringify({ contact_id: contact, message, thread_id: thread }),
    };
    const events = [];
    for (let attempt = 0; events.at(-1)?.[2] !== "end"; attempt++) {
      if (attempt === ATTEMPTS) throw new Error(`broken off after ${JSON.stringify(events)}`);
      if (events.length) request.headers["last-event-id"] = events.at(-1)[2];
      try {
        await read(await fetch("/api/v1/chat/stream", request), events);
      } catch (error) {
        if (!(error instanceof TypeError)) throw error; // what fetch throws when the connection is lost
      }
    }
    thread = events[0][1].thread_id;
    turns.push(events);
  }
  return { turns };
}

async function read(answer, events) {
  if (answer.status !== 200) throw new Error(`${answer.status} ${await answer.text()}`);
  let rest = "";
  for await (const text of answer.body.pipeThrough(new TextDecoderStream())) {
    const blocks = (rest + text).split("\n\n");
    rest = blocks.pop();
    for (const block of blocks.filter((block) => !block.startsWith(":"))) {
      const fields = Object.fromEntries(block.split("\n").map((line) => line.split(/: (.*)/s)));
      events.push([fields.event, JSON.parse(fields.data), fields.id]);
    }
  }
}
