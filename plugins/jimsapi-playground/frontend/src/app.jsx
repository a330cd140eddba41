// The page: the list of conversations, and the conversation.

import { useEffect, useRef, useState } from "preact/hooks";
import { Composer } from "./composer.jsx";
import { Conversation } from "./conversation.jsx";
import { focusMessage } from "./focus.js";
import { Log } from "./log.jsx";
import { hashOf } from "./route.js";
import { Threads } from "./threads.jsx";

export function App({ session }) {
  const { phase } = session;
  return (
    <>
      <p class="hidden" role="status">{session.announcement}</p>
      {phase === "loading" && <main class="alone"><h1>Playground</h1><p>Loading</p></main>}
      {phase === "failed" && <Failed session={session} />}
      {phase === "key" && <KeyForm session={session} />}
      {phase === "ready" && <Workspace session={session} />}
    </>
  );
}

function Failed({ session }) {
  return (
    <main class="alone">
      <h1>Playground</h1>
      <p class="problem" role="alert">{session.problem}</p>
      <button type="button" onClick={() => session.start()}>Try again</button>
    </main>
  );
}

function KeyForm({ session }) {
  const input = useRef();
  useEffect(() => input.current.focus(), []);
  const submit = (event) => {
    event.preventDefault();
    void session.useKey(input.current.value);
  };
  return (
    <main class="alone">
      <h1>Playground</h1>
      <form onSubmit={submit}>
        <p>This server asks for a key. This tab keeps it until you close it, and sends it to this server only.</p>
        {session.problem && <p class="problem" role="alert">{session.problem}</p>}
        <label for="key">API key or token</label>
        <input id="key" ref={input} type="password" autocomplete="off" required />
        <button class="primary">Use this key</button>
      </form>
    </main>
  );
}

function Workspace({ session }) {
  const [isOpen, setOpen] = useState(false);
  const { threadId, log } = session;
  return (
    <div class="workspace">
      <header>
        <button type="button" class="skip" onClick={focusMessage}>Go to the message field</button>
        <button
          type="button" class="only-narrow" aria-expanded={isOpen} aria-controls="threads"
          onClick={() => setOpen(!isOpen)}
        >
          Conversations
        </button>
        <h1>Playground</h1>
        {session.hasKey && <button type="button" onClick={() => session.forgetKey()}>Forget the key</button>}
      </header>
      <Threads session={session} isOpen={isOpen} onLeave={() => setOpen(false)} />
      <main>
        <div class="bar">
          <h2>{titleOf(session)}</h2>
          {threadId && session.mayList && (
            <nav aria-label="Views">
              <a href={hashOf(threadId)} aria-current={log ? undefined : "page"}>Chat</a>
              <a href={hashOf(threadId, true)} aria-current={log ? "page" : undefined}>Raw log</a>
            </nav>
          )}
        </div>
        {log ? <Log session={session} /> : <Conversation session={session} />}
        {!log && <Composer session={session} />}
      </main>
    </div>
  );
}

function titleOf({ threadId, list }) {
  if (!threadId) return "New conversation";
  return list.threads.find(({ thread_id }) => thread_id === threadId)?.title ?? "Conversation";
}
