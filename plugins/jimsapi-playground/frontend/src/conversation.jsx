// A conversation: turns, the run that answers now, and open questions.

import { Component } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { Curl, Feedback } from "./answer_tools.jsx";
import { focusMessage } from "./focus.js";
import { LiveText } from "./live_text.jsx";
import { Markdown } from "./markdown.jsx";
import { Question } from "./question.jsx";
import { followEnd, toEnd } from "./scroll.js";
import { Timeline } from "./timeline.jsx";
import { buttonsOf, isAnswer, isQuestion, textOf } from "./turns.js";

export function Conversation({ session }) {
  const { live, refused, shownTurns: turns, questions } = session;
  const isShown = live && turns.some((turn) => turn.live === live);
  const isEmpty = !turns.length && !live;
  useEffect(toEnd, [session.threadId, isEmpty]); // a conversation is opened
  useEffect(() => {
    if (live) toEnd(); // a run begins
  }, [live]);
  useEffect(followEnd);
  return (
    <div class="conversation" role="region" aria-label="Messages" tabIndex={0}>
      {session.threadProblem && <p class="problem" role="alert">{session.threadProblem}</p>}
      {session.isReading && !turns.length && <p class="note">Reading {session.passed || ""} events</p>}
      {session.hasEarlier && (
        <button type="button" onClick={() => session.showEarlier()}>Show earlier messages</button>
      )}
      {session.lacksEarlier && (
        <p class="note">This key may not read conversations, so earlier messages of this one are not shown.</p>
      )}
      {!session.threadId && !live && !refused && <p class="note">Say something to begin.</p>}
      {turns.map((turn, index) => (
        <Turn
          key={turn.key} session={session} turn={turn} state={turn.live?.state} ratings={ratingsOf(session, turn)}
          isNewest={index === turns.length - 1} isBusy={Boolean(live)}
        />
      ))}
      {live && !isShown && (
        <article class="turn" aria-label="The newest message">
          <div class="said"><p class="plain">{live.text}</p></div>
          <LiveAnswer live={live} />
        </article>
      )}
      {refused && <p class="problem">{refused.refusal}</p>}
      {!live && questions.map((one, index) => (
        <Question key={one.question_id} session={session} question={one} isFirst={index === 0} />
      ))}
    </div>
  );
}

// A text that is equal as long as the ratings of a turn are.
function ratingsOf({ ratings }, turn) {
  return JSON.stringify(turn.events.map(({ event_id }) => ratings.get(event_id) ?? 0));
}

const SHOWN = ["turn", "state", "ratings", "isNewest", "isBusy"];

// A turn is rendered again only if it has changed, so that a run does not render the whole conversation.
class Turn extends Component {
  shouldComponentUpdate(next) {
    return next.turn.live?.ended === null || SHOWN.some((name) => this.props[name] !== next[name]);
  }

  render(props) {
    return <TurnView {...props} />;
  }
}

function TurnView({ session, turn, isNewest, isBusy }) {
  const { user, live } = turn;
  const label = user ? `Message: ${user.text.slice(0, 60)}` : "Before the first message";
  return (
    <article class="turn" aria-label={label}>
      {user && <Said session={session} turn={turn} isNewest={isNewest} isBusy={isBusy} />}
      {live?.ended === null ? <LiveAnswer live={live} /> : <Answer session={session} turn={turn} isBusy={isBusy} />}
    </article>
  );
}

function Said({ session, turn, isNewest, isBusy }) {
  const { user } = turn;
  const [draft, setDraft] = useState(null);
  const mayChange = session.reader && !user.answer && !isBusy;
  const save = (event) => {
    event.preventDefault();
    void session.sendAgain(turn, draft);
    leave();
  };
  const press = ({ key, isComposing }) => {
    if (key === "Escape" && !isComposing) leave();
  };
  const leave = () => {
    setDraft(null);
    focusMessage();
  };
  return (
    <div class="said">
      {draft === null ? (
        <p class="plain">{user.answer ? `Answer: ${user.text}` : user.text}</p>
      ) : (
        <form onSubmit={save} onKeyDown={press}>
          <Draft text={draft} onChange={setDraft} />
          <button class="primary" disabled={!draft.trim()}>Send the edited message</button>
          <button type="button" onClick={leave}>Cancel</button>
        </form>
      )}
      {user.files?.map((file) => (
        <button key={file.file_id} type="button" class="chip" onClick={() => session.download(file)}>
          Download {file.name}
        </button>
      ))}
      {mayChange && draft === null && (
        <div class="tools">
          <button type="button" onClick={() => setDraft(user.text)}>Edit</button>
          {isNewest && (
            <button type="button" onClick={() => session.sendAgain(turn, user.text)}>Regenerate</button>
          )}
        </div>
      )}
    </div>
  );
}

function Draft({ text, onChange }) {
  const field = useRef();
  useEffect(() => field.current.focus(), []);
  return (
    <textarea
      ref={field} aria-label="The edited message" rows="3" value={text}
      onInput={(event) => onChange(event.currentTarget.value)}
    />
  );
}

function Answer({ session, turn, isBusy }) {
  const { live } = turn;
  const answers = turn.events.filter(isAnswer);
  const asked = turn.events.filter(isQuestion);
  const open = new Set(session.questions.map(({ question_id }) => question_id));
  const begun = live ? live.unfinished(turn.events) : [];
  const isSilent = turn.user && !answers.length && !asked.length && !begun.length && !live?.error && live?.state !== "stopped";
  return (
    <div class="answer">
      {answers.map((event) => <Message key={event.event_id} session={session} event={event} isBusy={isBusy} />)}
      {asked.map(({ event_id, event_data: { question_id, text } }) =>
        open.has(question_id) ? null : <Markdown key={event_id} text={textOf(text)} />,
      )}
      {begun.map(({ id, pieces }) => <LiveText key={id} pieces={pieces} />)}
      <Ending live={live} />
      {isSilent && <p class="note">No message answered this.</p>}
      <Timeline turn={turn} live={live} />
      <div class="tools">
        {session.reader && answers.length > 0 && <Feedback session={session} event={answers.at(-1)} />}
        {turn.user && <Curl session={session} turn={turn} />}
      </div>
    </div>
  );
}

function Message({ session, event, isBusy }) {
  const buttons = buttonsOf(event);
  return (
    <>
      <Markdown text={event.event_data.content} />
      {buttons.length > 0 && (
        <div class="choices">
          {buttons.map((text) => (
            <button key={text} type="button" disabled={isBusy} onClick={() => session.send(text)}>{text}</button>
          ))}
        </div>
      )}
    </>
  );
}

function LiveAnswer({ live }) {
  const messages = live.steps.filter(({ kind, event }) => kind === "message" || (event && isAnswer(event)));
  return (
    <div class="answer" aria-busy={live.ended === null}>
      {messages.map(({ id, pieces, event }) =>
        event ? <Markdown key={id} text={event.event_data.content} /> : <LiveText key={id} pieces={pieces} />,
      )}
      {live.ended === null && <p class="status">{live.status || (live.runId ? "Working" : "Sending")}</p>}
      <Ending live={live} />
      <Timeline live={live} isOpen />
    </div>
  );
}

// How a run has ended that this page has followed, if it has no result.
function Ending({ live }) {
  if (live?.state === "stopped") {
    const isBegun = live.unfinished(live.events).length > 0;
    return <p class="note">Stopped.{isBegun && " The server does not store an answer that was stopped."}</p>;
  }
  if (!live?.error) return null;
  return (
    <>
      <p class="problem">The run failed: {live.error}</p>
      {live.runId && (
        <p class="note">
          Run {live.runId}.{live.hasTraceback && " The server’s log has the traceback, with this identifier."}
        </p>
      )}
    </>
  );
}
