// What a conversation is made of: turns, each with a message or an answer to a question, and the events that followed.

export const isObject = (value) => typeof value === "object" && value !== null && !Array.isArray(value);
export const roleOf = ({ event_type, event_data }) =>
  event_type.startsWith("comm.") && isObject(event_data) ? event_data.role : null;
export const isAnswer = (event) => roleOf(event) === "assistant" && typeof event.event_data.content === "string";

export const isQuestion = ({ event_type, event_data }) => event_type === "question.asked" && isObject(event_data);

export function turnsOf(events) {
  const turns = [];
  const beside = new Map(); // the events beside a message come before it
  let turn = null;
  const begin = (event, user) => {
    turn = { key: event.event_id, user, events: beside.get(event.event_id) ?? [], live: null };
    turns.push(turn);
  };
  for (const event of events) {
    const { event_id, event_type, event_data: data } = event;
    const messageId = isObject(data) ? data.message_id : undefined;
    if (event_type === "jims.lifecycle.thread_created") continue;
    if (event_type.startsWith("message.") && messageId !== undefined) {
      if (!beside.has(messageId)) beside.set(messageId, []);
      beside.get(messageId).push(event);
    } else if (isObject(data) && data.role === "user") {
      begin(event, { text: textOf(data.content), answer: false, at: event.created_at });
    } else if (event_type === "question.answered" && (messageId ?? event_id) === event_id) {
      const answered = { [data.question_id]: data.value };
      begin(event, { text: textOf(data.value), answer: true, answered, at: event.created_at });
    } else {
      if (turn === null) begin(event, null);
      turn.events.push(event);
    }
  }
  for (const one of turns) {
    const files = one.events.find(({ event_type }) => event_type === "message.files")?.event_data.files;
    if (one.user) one.user.files = Array.isArray(files) ? files : [];
  }
  return turns;
}

// Gives runs that this page has followed to the turns that they answered: it knows their statuses, times and errors.
export function attach(turns, runs) {
  for (const run of runs) {
    const known = run.events[0]?.event_id;
    const turn = known
      ? turns.findLast(({ events }) => events.some(({ event_id }) => event_id === known))
      : turns.findLast(({ user, events }) => user?.text === run.text && !events.some(isAnswer));
    if (turn && !turn.live) turn.live = run;
  }
}

// The open questions of runs, oldest first. The stream of a run does not have the end of a question that the message of
// the run has closed.
export function questionsOf(runs) {
  let open = [];
  for (const { request, events } of runs) {
    const { answers } = request;
    const isOpen = ({ question_id: id, stays_open }) => (answers ? !Object.hasOwn(answers, id) : stays_open);
    open = openQuestions(events, open.filter(isOpen));
  }
  return open;
}

export function openQuestions(events, before = [], now = Date.now()) {
  const open = new Map(before.map((question) => [question.question_id, question]));
  for (const { event_type, event_data: data } of events) {
    if (!isObject(data) || typeof data.question_id !== "string") continue;
    if (event_type === "question.asked") open.set(data.question_id, data);
    else if (event_type === "question.answered" || event_type === "question.closed") open.delete(data.question_id);
  }
  return [...open.values()].filter(({ expires_at }) => !expires_at || Date.parse(expires_at) > now);
}

// Whether a typed text can answer a question: as one of its options, or as the text that it asks for. If a question that
// asks for a text stays open, a typed text is a message.
export function takesText({ options, schema, stays_open: staysOpen }) {
  return Array.isArray(options) || (!schema && !staysOpen);
}

// The answer that a typed text is to the first open question. Upper and lower case are the same in options. Returns
// {question, value}, or null if the text is a message.
export function answerIn(text, [question]) {
  if (!question || !takesText(question)) return null;
  const { options } = question;
  if (!Array.isArray(options)) return { question, value: text };
  const fold = (one) => textOf(one).trim().toLowerCase();
  const value = options.find((one) => one === text) ?? options.find((one) => fold(one) === fold(text));
  return value === undefined ? null : { question, value };
}

export function buttonsOf({ event_data: data }) {
  const buttons = Array.isArray(data.buttons) ? data.buttons : [];
  const texts = buttons.map((button) => (typeof button === "string" ? button : (button?.text ?? button?.title)));
  return texts.filter((text) => typeof text === "string" && text !== "");
}

export function textOf(value) {
  return typeof value === "string" ? value : JSON.stringify(value ?? "");
}
