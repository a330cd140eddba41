// What happened for an answer, step by step: statuses, reasoning, calls of tools, queries, usage, sources and the rest.

import { useState } from "preact/hooks";
import { Code, languageOf, queriesIn } from "./highlight.jsx";
import { LiveText } from "./live_text.jsx";
import { Link } from "./markdown.jsx";
import { isObject, roleOf, textOf } from "./turns.js";
import { counted } from "./words.js";

const SHOWN = 200; // steps
const LONG = 240; // characters; longer values are folded

export function Timeline({ turn, live, isOpen = false }) {
  const steps = stepsOf(turn?.events ?? live.events, live);
  const [shown, setShown] = useState(SHOWN);
  if (!steps.length) return null;
  return (
    <details class="timeline" open={isOpen}>
      <summary>{summaryOf(steps, turn, live)}</summary>
      {steps.length > shown && (
        <button type="button" onClick={() => setShown(shown + SHOWN)}>Show {steps.length - shown} earlier steps</button>
      )}
      <ol>
        {steps.slice(-shown).map((step, index) => <Step key={step.id ?? `${step.kind} ${index}`} step={step} />)}
      </ol>
    </details>
  );
}

// The steps in order: those that this page has followed, and then the stored events that it has not.
function stepsOf(events, live) {
  const stored = new Map(events.map((event) => [event.event_id, event]));
  const followed = (live?.steps ?? []).map((step) => ({ ...step, event: stored.get(step.id) ?? step.event }));
  const known = new Set(followed.map(({ id }) => id));
  const others = events.filter(({ event_id }) => !known.has(event_id));
  return [...others.filter(isBeside).map(stepOf), ...followed, ...others.filter((one) => !isBeside(one)).map(stepOf)];
}

const isBeside = ({ event_type }) => event_type.startsWith("message.");
const stepOf = (event) => ({ kind: "event", id: event.event_id, event, at: null, pieces: null });

function summaryOf(steps, turn, live) {
  const facts = [counted(steps.length, "step")];
  const usage = steps.filter(({ event }) => event?.event_type === "model.usage").map(({ event }) => event.event_data);
  const sum = (name) => usage.reduce((total, one) => total + (Number(one?.[name]) || 0), 0);
  if (usage.length) facts.push(counted(sum("input_tokens") + sum("output_tokens"), "token"));
  const cost = sum("cost");
  if (cost) facts.push(`$${cost.toPrecision(2)}`);
  const time = live ? (live.ended === null ? null : live.elapsed) : storedTime(turn);
  if (time !== null) facts.push(duration(time));
  return `Timeline: ${facts.join(", ")}`;
}

function storedTime({ user, events }) {
  const last = events.at(-1)?.created_at;
  return user?.at && last ? Date.parse(last) - Date.parse(user.at) : null;
}

function duration(milliseconds) {
  return milliseconds < 1000 ? `${Math.round(milliseconds)} ms` : `${(milliseconds / 1000).toFixed(1)} s`;
}

function Step({ step }) {
  const { title, facts, content } = shownOf(step);
  const time = step.at === null ? [] : [`at ${duration(step.at)}`];
  return (
    <li>
      <span class="step">{title}</span> <span class="facts">{[...facts, ...time].join(", ")}</span>
      {content}
    </li>
  );
}

function shownOf({ kind, text, type, missed, pieces, event }) {
  if (kind === "status") return { title: text, facts: type === "status" ? [] : [type], content: null };
  if (kind === "gap") return { title: "Missed", facts: [missed === null ? "some items" : counted(missed, "item")], content: null };
  if (!event && kind === "reasoning") return { title: "Reasoning", facts: [], content: <LiveText pieces={pieces} /> };
  if (!event) return { title: "Message", facts: [], content: null };
  const data = event.event_data;
  if (!isObject(data)) return { title: event.event_type, facts: [], content: <Data value={data} name="data" /> };
  if (Object.hasOwn(SHOWN_AS, event.event_type)) return SHOWN_AS[event.event_type](data, pieces);
  if (roleOf(event) !== null && typeof data.content === "string") {
    const { role, content, ...rest } = data;
    return { title: "Message", facts: [role], content: <><Text text={content} />{rest.buttons && <Data value={rest} name="buttons" />}</> };
  }
  return { title: event.event_type, facts: [], content: <Data value={data} name="data" /> };
}

const SHOWN_AS = {
  "tool.call": ({ name, arguments: given, result, error, duration: seconds }) => ({
    title: `Tool ${name}`,
    facts: [seconds === undefined ? "running" : duration(seconds * 1000), ...(error === undefined ? [] : ["failed"])],
    content: (
      <>
        <Data value={given} name="arguments" />
        {result !== undefined && <Data value={result} name="result" />}
        {error !== undefined && <p class="problem">{textOf(error)}</p>}
      </>
    ),
  }),
  "model.usage": ({ model, input_tokens: read, output_tokens: written, cached_tokens: cached, cost }) => ({
    title: `Model ${model}`,
    facts: [
      `${counted(read, "token")} in${cached ? ` (${cached} cached)` : ""}`,
      `${written} out`,
      ...(cost === null || cost === undefined ? [] : [`$${Number(cost).toPrecision(2)}`]),
    ],
    content: null,
  }),
  "model.reasoning": ({ content }) => ({ title: "Reasoning", facts: [], content: <Text text={textOf(content)} /> }),
  "answer.source": ({ url, title }) => ({
    title: "Source",
    facts: [],
    content: <p>{url ? <Link url={url}>{title ?? url}</Link> : title}</p>,
  }),
  "question.asked": ({ text, options }) => ({
    title: "Question",
    facts: Array.isArray(options) ? [options.join(" or ")] : [],
    content: <Text text={textOf(text)} />,
  }),
};

function Text({ text }) {
  if (text.length <= LONG) return <p class="plain">{text}</p>;
  return (
    <Folded label={`${text.slice(0, 80)}…`}>{() => <p class="plain">{text}</p>}</Folded>
  );
}

// A value as JSON, folded if it is long. Queries within it are shown first, each in its own language.
function Data({ value, name }) {
  if (typeof value === "string") return <Value text={value} language={languageOf(value, name)} label={name} />;
  const queries = queriesIn(value);
  return (
    <>
      {queries.map(({ path, text, language }, index) => (
        <Value key={index} text={text} language={language} label={`${path || name} (${language})`} />
      ))}
      <Json value={value} name={name} isFolded={queries.length > 0} />
    </>
  );
}

function Json({ value, name, isFolded }) {
  const short = JSON.stringify(value) ?? "null";
  if (!isFolded && short.length <= LONG) return <Value text={short} language="json" label={name} />;
  const count = Array.isArray(value) ? counted(value.length, "item") : counted(Object.keys(value).length, "field");
  return (
    <Folded label={`${name}, ${count}`}>{() => <Code text={JSON.stringify(value, null, 2)} language="json" />}</Folded>
  );
}

function Value({ text, language, label }) {
  const show = () => (language ? <Code text={text} language={language} /> : <p class="plain">{text}</p>);
  if (text.length > LONG) return <Folded label={label}>{show}</Folded>;
  return <div class="value"><span class="note">{label}</span>{show()}</div>;
}

// Makes what is folded when a person opens it.
function Folded({ label, children }) {
  const [isOpen, setOpen] = useState(false);
  return (
    <details onToggle={(event) => setOpen(event.currentTarget.open)}>
      <summary>{label}</summary>
      {isOpen && children()}
    </details>
  );
}
