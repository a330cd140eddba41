// The events of a thread as they are stored, newest first.

import { useState } from "preact/hooks";
import { Code } from "./highlight.jsx";

const SHOWN = 200;

export function Log({ session }) {
  const [shown, setShown] = useState(SHOWN);
  const events = session.reader?.events ?? [];
  const hasMore = events.length > shown || (session.reader?.hasEarlier ?? false);
  const more = async () => {
    if (events.length < shown + SHOWN) await session.readEarlierEvents();
    setShown(shown + SHOWN);
  };
  return (
    <div class="conversation" role="region" aria-label="Events" tabIndex={0}>
      {session.threadProblem && <p class="problem" role="alert">{session.threadProblem}</p>}
      {session.isReading && <p class="note">Reading {session.passed || ""} events</p>}
      <p class="note">Newest first. Thread {session.threadId}</p>
      <ol class="log">
        {events.slice(-shown).reverse().map((event) => <Event key={event.event_id} event={event} />)}
      </ol>
      {hasMore && <button type="button" onClick={more}>Show earlier events</button>}
    </div>
  );
}

function Event({ event }) {
  const [isOpen, setOpen] = useState(false);
  return (
    <li>
      <details onToggle={({ currentTarget }) => setOpen(currentTarget.open)}>
        <summary>
          <span class="step">{event.event_type}</span> <time>{event.created_at}</time>
        </summary>
        {isOpen && <Code text={JSON.stringify(event, null, 2)} language="json" />}
      </details>
    </li>
  );
}
