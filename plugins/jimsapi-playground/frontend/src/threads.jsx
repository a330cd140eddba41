// The contact, and the list of its conversations, which can be searched.

import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";
import { hashOf } from "./route.js";
import { plainOf } from "./words.js";

const PAUSE = 250; // milliseconds without a key before a search begins

export function Threads({ session, isOpen, onLeave }) {
  const { list, threadId } = session;
  return (
    <aside id="threads" class={isOpen ? "open" : ""} aria-label="Conversations">
      {!session.isBound && <Contact session={session} />}
      <a class="button" href={hashOf(null)} onClick={onLeave} aria-current={threadId ? undefined : "page"}>
        New conversation
      </a>
      {!session.mayList && (
        <p class="note">This key may not read conversations, so the page shows only what was said here.</p>
      )}
      {session.mayList && <Search session={session} />}
      {list.problem && session.mayList && <p class="problem" role="alert">{list.problem}</p>}
      <ul>
        {list.threads.map((thread) => (
          <li key={thread.thread_id}>
            <a
              href={hashOf(thread.thread_id)} onClick={onLeave}
              aria-current={thread.thread_id === threadId ? "page" : undefined}
            >
              <span class="title">{thread.title ?? "Without a title"}</span>
              <span class="preview">{plainOf(thread.match?.text ?? thread.preview ?? "")}</span>
              <span class="facts">{factsOf(thread)}</span>
            </a>
          </li>
        ))}
      </ul>
      {session.mayList && !list.threads.length && !list.problem && (
        <p class="note">{list.query ? "No conversation matches." : "There are no conversations yet."}</p>
      )}
      {list.next && (
        <button type="button" onClick={() => session.readList(list.query, list.next)}>More conversations</button>
      )}
    </aside>
  );
}

function factsOf({ active_at: at, questions, archived_at: archived }) {
  const facts = at ? [new Date(at).toLocaleString()] : [];
  if (questions) facts.push("has a question");
  if (archived) facts.push("archived");
  return facts.join(", ");
}

function Contact({ session }) {
  const [text, setText] = useState(session.contact);
  useLayoutEffect(() => setText(session.contact), [session.contact]);
  const use = (event) => {
    event.preventDefault();
    if (text !== session.contact && text.trim()) void session.useContact(text.trim());
  };
  return (
    <form class="contact" onSubmit={use}>
      <label for="contact">Contact</label>
      <input
        id="contact" value={text} maxLength={500} aria-describedby="contact-note"
        onInput={(event) => setText(event.currentTarget.value)} onBlur={use}
      />
      <span id="contact-note" class="note">Enter lists the conversations of another contact.</span>
    </form>
  );
}

function Search({ session }) {
  const [text, setText] = useState(session.list.query);
  const timer = useRef();
  useEffect(() => () => clearTimeout(timer.current), []);
  const search = (query) => void session.readList(query);
  const type = ({ currentTarget: { value } }) => {
    setText(value);
    clearTimeout(timer.current);
    timer.current = setTimeout(search, PAUSE, value);
  };
  const submit = (event) => {
    event.preventDefault();
    clearTimeout(timer.current);
    search(text);
  };
  return (
    <form role="search" onSubmit={submit}>
      <label for="search">Search conversations</label>
      <input id="search" type="search" value={text} maxLength={200} onInput={type} />
    </form>
  );
}
