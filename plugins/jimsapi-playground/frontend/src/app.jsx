// The page: the list of conversations, and the conversation.

import { useEffect, useRef, useState } from "preact/hooks";
import { Composer } from "./composer.jsx";
import { Contacts } from "./contacts.jsx";
import { Conversation } from "./conversation.jsx";
import { focusMessage } from "./focus.js";
import { Log } from "./log.jsx";
import { CONTACTS, hashOf, RUNS } from "./route.js";
import { Runs } from "./runs.jsx";
import { ThreadTools } from "./thread_tools.jsx";
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
  return (
    <div class="workspace">
      <header>
        {session.view === "chat" && (
          <button type="button" class="skip" onClick={focusMessage}>Go to the message field</button>
        )}
        <button
          type="button" class="only-narrow" aria-expanded={isOpen} aria-controls="threads"
          onClick={() => setOpen(!isOpen)}
        >
          Conversations
        </button>
        <h1>Playground</h1>
        {session.mayList && <Places session={session} />}
        {session.hasKey && <button type="button" onClick={() => session.forgetKey()}>Forget the key</button>}
      </header>
      <Threads session={session} isOpen={isOpen} onLeave={() => setOpen(false)} />
      <main>
        <View session={session} />
      </main>
    </div>
  );
}

function Places({ session: { threadId, view } }) {
  const current = (...views) => (views.includes(view) ? "page" : undefined);
  return (
    <nav aria-label="Places">
      <a href={hashOf(threadId)} aria-current={current("chat", "log")}>Chat</a>
      <a href={RUNS} aria-current={current("runs")}>Runs</a>
      <a href={CONTACTS} aria-current={current("contacts")}>Contacts</a>
    </nav>
  );
}

function View({ session }) {
  const { view } = session;
  if (view === "runs" || view === "contacts") {
    return (
      <>
        <div class="bar">
          <h2 tabIndex={-1}>{view === "runs" ? "Runs" : "Contacts"}</h2>
          <button type="button" onClick={() => session.follow()}>Refresh</button>
        </div>
        {view === "runs" ? <Runs session={session} /> : <Contacts session={session} />}
      </>
    );
  }
  return (
    <>
      <ConversationBar session={session} />
      {view === "log" ? <Log session={session} /> : <Conversation session={session} />}
      {view === "chat" && <Composer session={session} />}
    </>
  );
}

function ConversationBar({ session }) {
  const { threadId, view } = session;
  return (
    <div class="bar">
      <h2>{titleOf(session)}</h2>
      {threadId && session.mayList && (
        <>
          <nav aria-label="Views">
            <a href={hashOf(threadId)} aria-current={view === "log" ? undefined : "page"}>Chat</a>
            <a href={hashOf(threadId, true)} aria-current={view === "log" ? "page" : undefined}>Raw log</a>
          </nav>
          <ThreadTools key={threadId} session={session} title={titleOf(session)} />
        </>
      )}
    </div>
  );
}

function titleOf({ threadId, list }) {
  if (!threadId) return "New conversation";
  return list.threads.find(({ thread_id }) => thread_id === threadId)?.title ?? "Conversation";
}
