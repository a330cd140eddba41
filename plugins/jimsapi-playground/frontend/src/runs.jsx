// The runs of the server, newest first: an operator chooses, looks at one, and cancels one.

import { useLayoutEffect, useState } from "preact/hooks";
import { Code } from "./highlight.jsx";

const STATUSES = ["queued", "running", "completed", "failed", "cancelled", "interrupted"];
const OPEN = ["queued", "running"];

export function Runs({ session }) {
  const { operator } = session;
  const { runs } = operator;
  return (
    <div class="conversation" role="region" aria-label="Runs" tabIndex={0}>
      <Choice session={session} />
      {operator.needsContact && (
        <p class="note">This server admits every caller, so it lists the runs of one contact only.</p>
      )}
      {runs.problem && <p class="problem" role="alert">{runs.problem}</p>}
      <ol class="rows" aria-label="Runs" aria-busy={runs.isReading}>
        {runs.items.map((run) => <Run key={run.run_id} session={session} run={run} />)}
      </ol>
      {!runs.items.length && !runs.next && !runs.isReading && !runs.problem && <p class="note">There are no such runs.</p>}
      {runs.next && <button type="button" disabled={runs.isReading} onClick={() => operator.more(runs)}>More runs</button>}
    </div>
  );
}

function Choice({ session }) {
  const { operator } = session;
  const [text, setText] = useState(operator.contact ?? "");
  useLayoutEffect(() => setText(operator.contact ?? ""), [operator.contact]);
  const contact = text === (operator.contact ?? "") ? operator.contact : text.trim() || null;
  const choose = (event) => {
    event.preventDefault();
    void operator.showRuns(operator.status, contact);
  };
  return (
    <form class="choice" onSubmit={choose}>
      <div>
        <label for="status">Status</label>
        <select id="status" value={operator.status} onChange={({ currentTarget }) => operator.showRuns(currentTarget.value, contact)}>
          <option value="">all</option>
          {STATUSES.map((status) => <option key={status}>{status}</option>)}
        </select>
      </div>
      {!session.isBound && (
        <div>
          <label for="of-contact">Contact</label>
          <input
            id="of-contact" value={text} maxLength={500} placeholder={operator.needsContact ? session.contact : "all"}
            onInput={({ currentTarget }) => setText(currentTarget.value)}
          />
        </div>
      )}
      <button>Show</button>
    </form>
  );
}

function Run({ session, run }) {
  const { operator } = session;
  const details = operator.details.get(run.run_id);
  return (
    <li>
      <p>
        <span class={`badge ${run.status}`}>{run.status}</span> <span class="step">{run.contact_id ?? "no contact"}</span>{" "}
        <time>{new Date(run.accepted_at).toLocaleString()}</time>
      </p>
      <p class="facts">{factsOf(run)}</p>
      <div class="tools">
        <button type="button" onClick={() => session.openOf(run.contact_id, run.thread_id)}>Conversation</button>
        <button type="button" aria-expanded={Boolean(details)} onClick={() => operator.toggle(run.run_id)}>Details</button>
        {OPEN.includes(run.status) && <button type="button" onClick={() => operator.cancel(run.run_id)}>Cancel</button>}
      </div>
      {details?.problem && <p class="problem" role="alert">{details.problem}</p>}
      {details?.run?.error && <p class="problem">{details.run.error.detail}</p>}
      {details?.run && <Code text={JSON.stringify(details.run, null, 2)} language="json" />}
    </li>
  );
}

function factsOf({ run_id: runId, accepted_at: accepted, started_at: started, finished_at: finished, failure }) {
  const facts = [];
  if (failure) facts.push(failure === "timeout" ? "exceeded its time limit" : "its pipeline failed");
  if (started) facts.push(`waited ${secondsBetween(accepted, started)}`);
  if (started && finished) facts.push(`took ${secondsBetween(started, finished)}`);
  return [...facts, runId].join(", ");
}

function secondsBetween(begin, end) {
  return `${((new Date(end) - new Date(begin)) / 1000).toFixed(2)} s`;
}
