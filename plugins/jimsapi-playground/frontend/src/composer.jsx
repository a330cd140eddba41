// The field for a message, its files, and the button that stops a run.

import { useState } from "preact/hooks";
import { focusMessage } from "./focus.js";
import { scrollPage } from "./scroll.js";
import { answerIn, takesText, textOf } from "./turns.js";

const WRITE = "Say something";
const PAGES = { PageUp: -1, PageDown: 1 };

export function Composer({ session }) {
  const { live, draft } = session;
  const { text, files } = draft;
  const [problem, setProblem] = useState("");
  const isEmpty = !text.trim() && !files.length;

  const send = async (event) => {
    event?.preventDefault();
    const { text, files } = session.draft; // what is shown may be some milliseconds older
    if ((!text.trim() && !files.length) || session.live) return;
    session.write({ text: "", files: [] });
    setProblem("");
    const answer = files.length ? null : answerIn(text.trim(), session.questions);
    const sent = answer ? session.answer(answer.question, answer.value, textOf(answer.value)) : session.send(text, files);
    if (!(await sent)) session.write({ text: session.draft.text || text, files });
  };
  const press = (event) => {
    if (event.isComposing) return;
    const isPlain = !event.ctrlKey && !event.altKey && !event.shiftKey && !event.metaKey;
    const direction = isPlain && PAGES[event.key];
    const { scrollHeight, clientHeight } = event.currentTarget;
    if (direction && scrollHeight <= clientHeight) scrollPage(direction); // the field itself has nothing to scroll
    if (event.key === "Enter" && !event.shiftKey) void send(event);
  };
  const attach = async (event) => {
    const chosen = [...event.currentTarget.files];
    event.currentTarget.value = "";
    setProblem("");
    for (const file of chosen) {
      try {
        const stored = await session.upload(file);
        session.write({ files: [...session.draft.files, stored] });
        session.announce(`${stored.name} is attached`);
      } catch (error) {
        setProblem(`${file.name}: ${error.message}`);
      }
    }
    focusMessage();
  };
  const detach = (file) => session.write({ files: files.filter((one) => one !== file) });

  return (
    <form class="composer" onSubmit={send}>
      {problem && <p class="problem" role="alert">{problem}</p>}
      {files.length > 0 && (
        <ul class="chips" aria-label="Attached files">
          {files.map((file) => (
            <li key={file.file_id}>
              {file.name}
              <button type="button" aria-label={`Remove ${file.name}`} onClick={() => detach(file)}>×</button>
            </li>
          ))}
        </ul>
      )}
      <label class="hidden" for="message">Message</label>
      <textarea
        id="message" rows="3" value={text} placeholder={live ? WRITE : placeholderFor(session.questions)} aria-describedby="keys"
        onInput={(event) => session.write({ text: event.currentTarget.value })} onKeyDown={press}
      />
      <div class="actions">
        <span id="keys" class="note">Enter sends, Shift+Enter begins a line.</span>
        {session.takesFiles && (
          <label class="button file">
            Attach files
            <input type="file" multiple onChange={attach} />
          </label>
        )}
        {live ? (
          <button type="button" disabled={!live.runId} onClick={() => session.stop(live)}>Stop</button>
        ) : (
          <button class="primary" disabled={isEmpty}>Send</button>
        )}
      </div>
    </form>
  );
}

// Says what becomes of a text while a question is open: a message closes it.
function placeholderFor(questions) {
  const closed = questions.filter((one) => !one.stays_open);
  if (!closed.length) return WRITE;
  const [first] = questions;
  const which = questions.length > 1 ? "the first question" : "the question";
  const closes = `A message closes the open question${closed.length > 1 ? "s" : ""}`;
  if (!takesText(first)) return closes;
  return first.options ? `Type an option to answer ${which}. ${closes}` : `Type the answer to ${which}`;
}
