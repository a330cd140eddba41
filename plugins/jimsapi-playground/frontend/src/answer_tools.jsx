// What a person can do with an answer: rate it, and copy its request.

import { useState } from "preact/hooks";
import { curlOf } from "./curl.js";

export function Feedback({ session, event }) {
  const given = session.ratings.get(event.event_id);
  const [comment, setComment] = useState(null);
  const rate = (rating) => {
    const next = given?.rating === rating ? null : rating;
    setComment(next === -1 ? "" : null);
    void session.rate(event.event_id, next);
  };
  const save = (submitted) => {
    submitted.preventDefault();
    submitted.currentTarget.parentElement.querySelector("[aria-pressed=true]").focus();
    setComment(null);
    void session.rate(event.event_id, given.rating, comment.trim());
  };
  return (
    <>
      <button type="button" aria-pressed={given?.rating === 1} onClick={() => rate(1)}>Good answer</button>
      <button type="button" aria-pressed={given?.rating === -1} onClick={() => rate(-1)}>Bad answer</button>
      {given && comment === null && (
        <button type="button" onClick={() => setComment(given.comment ?? "")}>Comment</button>
      )}
      {given && comment !== null && (
        <form class="inline" onSubmit={save}>
          <input
            aria-label="Comment on the answer" value={comment} maxLength={10000}
            onInput={(event) => setComment(event.currentTarget.value)}
          />
          <button>Save the comment</button>
        </form>
      )}
    </>
  );
}

export function Curl({ session, turn }) {
  const [isCopied, setCopied] = useState(false);
  const command = curlOf(requestOf(session, turn));
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(command);
      setCopied(true);
      session.announce("The command was copied");
    } catch {
      session.announce("The browser does not let the page copy: select the command");
    }
  };
  const show = ({ currentTarget }) => currentTarget.open && currentTarget.scrollIntoView({ block: "nearest" });
  return (
    <details class="curl" onToggle={show}>
      <summary>curl</summary>
      <pre class="code"><code>{command}</code></pre>
      <button type="button" onClick={copy}>{isCopied ? "Copied" : "Copy the command"}</button>
    </details>
  );
}

// The request as this page has sent it, or one with the same message if it was sent from elsewhere.
function requestOf(session, { user, live }) {
  if (live) return live.request;
  const request = { ...session.owner, thread_id: session.threadId };
  if (user.answer) return { ...request, answers: user.answered };
  request.message = user.text;
  if (user.files.length) request.files = user.files.map(({ file_id }) => file_id);
  return request;
}
