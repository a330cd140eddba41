// What the page knows and does. Components call it, and are rendered again when it has changed.

import { ApiError, converse, follow, getJson, hasKey, request, setKey } from "./api.js";
import { focusMessage, focusTitle } from "./focus.js";
import { LiveRun } from "./live.js";
import { Operator } from "./operator.js";
import { ThreadReader } from "./reader.js";
import { hashOf, routeOf, RUNS } from "./route.js";
import { saveAs } from "./save.js";
import { attach, isAnswer, isQuestion, openQuestions, questionsOf, textOf, turnsOf } from "./turns.js";
import { counted, plainOf } from "./words.js";

const CONTACT = "jimsapi.playground.contact";
const OPEN_RUN = "jimsapi.playground.run";
const FIRST_CONTACT = "playground";
const NOBODY = "nobody-7f3c1e9a"; // a contact that no server has
const TURNS_SHOWN = 20;
const RUNS_REMEMBERED = 50;
const LIST = 30;
const FILES = "/api/v1/files";
const REFUSED_KEY = "The server does not accept this key.";

export class Session {
  constructor(onChange) {
    this.onChange = onChange;
    this.phase = "loading"; // then key, ready or failed
    this.problem = "";
    this.contact = recall("localStorage", CONTACT) ?? FIRST_CONTACT;
    this.view = "chat"; // or log, runs or contacts
    this.reset();
    window.addEventListener("hashchange", () => this.follow());
  }

  // Forgets all that a key has shown.
  reset() {
    this.announcement = "";
    this.takesFiles = false;
    this.list = { threads: [], next: null, query: "", problem: "" };
    this.threadId = undefined; // no conversation is open, not even the new one, which is null
    this.reader = null;
    this.passed = 0;
    this.isReading = false;
    this.turns = [];
    this.questions = [];
    this.turnsShown = TURNS_SHOWN;
    this.lacksEarlier = false; // earlier messages are not shown, because this caller may not read them
    this.threadProblem = "";
    this.ratings = new Map();
    this.runs = []; // open runs of this page
    this.past = []; // its runs that have ended, newest first
    this.draft = { text: "", files: [] }; // of the message that is being written
    this.refused = null; // the newest of them, if no thread has accepted its message
    this.entered = new Map(); // what was entered into the forms of questions, by their identifiers
    this.resetRights();
  }

  // The rights of a key may have changed, too.
  resetRights() {
    this.operator = new Operator(this);
    this.isBound = false;
    this.mayList = true;
    this.list.problem = "";
  }

  // Components are rendered at most once in a while, however much arrives.
  changed() {
    this.timer ??= setTimeout(() => {
      this.timer = null;
      this.onChange();
    }, 16);
  }

  get hasKey() {
    return hasKey();
  }

  get owner() {
    return this.isBound ? {} : { contact_id: this.contact };
  }

  get live() {
    return this.runs.find(({ threadId }) => threadId === this.threadId) ?? null;
  }

  get shownTurns() {
    return this.turns.slice(-this.turnsShown);
  }

  get hasEarlier() {
    return this.turns.length > this.turnsShown || (this.reader?.hasEarlier ?? false);
  }

  async start() {
    try {
      const offered = await getJson("/openapi.json").catch(() => null); // a server may show it to nobody
      await this.findRights();
      this.takesFiles = offered ? FILES in offered.paths : await this.findFiles();
    } catch (error) {
      if (error.status === 401) return this.ask(this.hasKey ? REFUSED_KEY : "");
      this.phase = "failed";
      this.problem = error.message;
      return this.changed();
    }
    this.phase = "ready";
    this.follow();
    if (this.view === "chat") focusMessage();
    await this.readList();
    await this.resume();
  }

  // Finds out whether the caller may list threads, and whether it is bound to a contact. Only a caller that is bound may
  // not name a contact that nobody has.
  async findRights() {
    try {
      await getJson("/api/v1/threads", { limit: 1, contact_id: NOBODY });
    } catch (error) {
      if (error.status !== 403) throw error;
      await this.findRightsOfBound();
    }
  }

  async findRightsOfBound() {
    try {
      await getJson("/api/v1/threads", { limit: 1 });
      this.isBound = true;
    } catch (error) {
      if (error.status !== 403) throw error;
      this.mayList = false;
      this.list.problem = error.message;
    }
  }

  ask(problem) {
    this.phase = "key";
    this.problem = problem;
    this.changed();
  }

  // Asks for another key if the server does not accept this one. Returns whether it does so.
  asksForKey(error) {
    if (error.status !== 401) return false;
    this.ask(REFUSED_KEY);
    return true;
  }

  async useKey(key) {
    if (/[^\x20-\x7e]/.test(key.trim())) return this.ask("A key has only ASCII characters, and no control characters.");
    if (setKey(key)) {
      this.reset();
      keep("sessionStorage", OPEN_RUN, "");
    } else {
      this.resetRights();
    }
    await this.start();
  }

  forgetKey() {
    setKey("");
    keep("sessionStorage", OPEN_RUN, "");
    history.replaceState(null, "", location.pathname);
    location.reload(); // nothing that the key has shown stays on the page
  }

  async findFiles() {
    try {
      await request("GET", FILES, { query: { limit: 1, ...this.owner } });
      return true;
    } catch (error) {
      return error instanceof ApiError && error.status !== 404;
    }
  }

  async useContact(contact) {
    this.takeContact(contact);
    location.hash = hashOf(null);
    focusMessage();
    await this.readList();
  }

  // Opens a conversation, as the contact that has it.
  async openOf(contact, threadId) {
    if (contact !== null && !this.isBound) this.takeContact(contact);
    location.hash = hashOf(threadId);
    focusMessage();
    await this.readList();
  }

  takeContact(contact) {
    this.contact = contact;
    keep("localStorage", CONTACT, contact);
    this.list.query = "";
  }

  showRunsOf(contact) {
    this.operator.contact = contact;
    location.hash = RUNS;
    focusTitle();
  }

  // Forgets a conversation that is no longer there.
  leave(threadId) {
    if (threadId === this.threadId) location.hash = hashOf(null);
    focusMessage();
    void this.readList();
  }

  // Shows why something was not done, if its conversation is still the one that is shown.
  setProblem(threadId, text) {
    if (threadId !== this.threadId) return;
    this.threadProblem = text;
    if (text) this.announcement = text;
    this.changed();
  }

  // The list

  async readList(query = this.list.query, after = null) {
    if (!this.mayList) return;
    const { list } = this;
    const isOld = () => list !== this.list || query !== list.query; // another key is used, or a later search has begun
    list.query = query;
    try {
      const given = { limit: LIST, after, q: query.trim() || null, ...this.owner };
      const page = await getJson("/api/v1/threads", given);
      if (isOld()) return;
      list.threads = after ? [...list.threads, ...page.threads] : page.threads;
      list.next = page.next;
      list.problem = "";
    } catch (error) {
      if (isOld()) return;
      if (this.asksForKey(error)) return;
      list.problem = error.message;
    }
    if (query) this.announcement = `${counted(list.threads.length, "conversation")} found`;
    this.changed();
  }

  // The conversation that the address names

  follow() {
    const { threadId, view } = routeOf(location.hash);
    this.view = view;
    const { operator } = this;
    if (view !== "runs") operator.runs.stop();
    if (view !== "contacts") operator.contacts.stop();
    if (view === "runs") void operator.showRuns();
    else if (view === "contacts") void operator.showContacts();
    else if (threadId !== this.threadId || (threadId && !this.reader)) void this.open(threadId);
    this.changed();
  }

  async open(threadId) {
    this.threadId = threadId;
    this.reader = threadId && this.mayList ? new ThreadReader(threadId) : null;
    this.lacksEarlier = threadId !== null && !this.mayList && !this.past.some((run) => run.threadId === threadId);
    this.turns = [];
    this.questions = [];
    this.ratings = new Map();
    this.turnsShown = TURNS_SHOWN;
    this.threadProblem = "";
    this.refused = null;
    this.passed = 0;
    this.isReading = false;
    this.changed();
    await this.reread();
    await this.readRatings();
  }

  async reread() {
    const { reader } = this;
    if (!reader) return this.build();
    this.isReading = true;
    try {
      await reader.readToEnd((passed) => {
        this.passed = passed;
        this.changed();
      });
    } catch (error) {
      if (reader === this.reader) this.threadProblem = error.message;
    }
    if (reader !== this.reader) return;
    this.isReading = false;
    this.build();
  }

  // Makes turns of the stored events. A caller that may not read them sees what this page has sent.
  build() {
    const runs = this.past.filter(({ threadId }) => threadId === this.threadId);
    if (this.reader) {
      this.turns = turnsOf(this.reader.events);
      attach(this.turns, [...runs, ...(this.live ? [this.live] : [])]);
      this.questions = openQuestions(this.reader.events);
    } else if (this.threadId) {
      const accepted = runs.filter(({ runId }) => runId).reverse(); // oldest first
      this.turns = accepted.map((run) => ({
        key: run.runId,
        user: { text: run.text, answer: Boolean(run.request.answers), files: [], at: null },
        events: run.events,
        live: run,
      }));
      this.questions = questionsOf(accepted);
    }
    this.changed();
  }

  async showEarlier() {
    this.turnsShown += TURNS_SHOWN;
    if (this.turns.length < this.turnsShown) await this.reader?.readEarlier();
    this.build();
  }

  async readEarlierEvents() {
    await this.reader.readEarlier();
    this.build();
  }

  // Messages

  // Keeps what is being written, so that another view, or the form for the key, does not take it.
  write(change) {
    this.draft = { ...this.draft, ...change };
    this.changed();
  }

  async send(text, files = []) {
    const request = { message: text };
    if (files.length) request.files = files.map(({ file_id }) => file_id);
    return this.run(text, request, () => this.placeOfNew());
  }

  async answer(question, value, shown) {
    const threadId = this.threadId;
    const isAccepted = await this.run(shown, { answers: { [question.question_id]: value } }, async () => threadId);
    if (isAccepted) this.entered.delete(question.question_id);
    return isAccepted;
  }

  // An edited message, and a message that is sent again, go on in a fork that ends before it.
  async sendAgain(turn, text) {
    const files = turn.user.files.map(({ file_id }) => file_id);
    const request = files.length ? { message: text, files } : { message: text };
    return this.run(text, request, () => this.fork(this.threadId, turn.key));
  }

  // Returns the thread for a new conversation. Without a thread the server goes on in the contact's newest one. So if
  // there is one, the new one is a fork of it that ends before its first message.
  async placeOfNew() {
    if (this.threadId || !this.mayList) return this.threadId;
    const { threads } = await getJson("/api/v1/threads", { limit: 1, ...this.owner });
    if (!threads.length) return null;
    const newest = threads[0].thread_id;
    let after = null;
    do {
      const page = await getJson(`/api/v1/threads/${newest}/events`, { limit: 100, after });
      const first = turnsOf(page.events).find(({ user }) => user);
      if (first) return this.fork(newest, first.key);
      after = page.next;
    } while (after);
    return newest; // nobody has said anything in it
  }

  async fork(threadId, before) {
    const response = await request("POST", `/api/v1/threads/${threadId}/fork`, { json: { before } });
    return (await response.json()).thread_id;
  }

  // Sends a message and follows its run. Returns false if no thread has accepted it. A run of a key that is no longer
  // used is not shown.
  async run(text, request, place) {
    const live = new LiveRun(text, request);
    const from = this.threadId;
    live.threadId = from;
    this.refused = null;
    this.runs.push(live);
    this.announce("Sent");
    let isPlaced = false;
    try {
      const threadId = await place();
      const body = { ...this.owner, ...request };
      if (threadId) body.thread_id = threadId;
      else body.run_conversation_start_on_new_thread = true;
      live.request = body;
      for await (const item of converse(body)) {
        if (!this.runs.includes(live)) return true;
        if (live.take(item)) this.changed();
        if (item.name === "started") {
          isPlaced = true;
          remember(live);
          if (this.threadId === from) this.goTo(live);
        }
        if (item.name === "status") this.announce(item.data.status);
      }
    } catch (error) {
      if (!this.runs.includes(live)) return true;
      this.asksForKey(error);
      live.error = error.message;
    }
    if (live.ended === null) live.end("failed");
    if (!isPlaced) this.refused = live;
    await this.finish(live);
    return isPlaced || !this.past.includes(live);
  }

  // A conversation that begins gets its address when a thread has accepted the message.
  goTo(live) {
    if (live.threadId === this.threadId) return;
    const address = routeOf(location.hash); // the person may just have changed it, and `follow` has not seen that yet
    const isHere = address.view === "chat" && address.threadId === this.threadId;
    this.threadId = live.threadId;
    this.reader = this.mayList ? new ThreadReader(live.threadId) : null;
    this.lacksEarlier = false;
    this.turns = [];
    this.questions = [];
    this.ratings = new Map();
    void this.reread();
    if (isHere) history.pushState(null, "", hashOf(live.threadId));
    void this.readList();
  }

  async finish(live) {
    if (!this.runs.includes(live)) return;
    forget(live);
    this.past = [live, ...this.past].slice(0, RUNS_REMEMBERED);
    if (live.threadId === this.threadId) await this.reread();
    if (!this.runs.includes(live)) return;
    this.runs = this.runs.filter((run) => run !== live);
    if (!live.isUnknown) this.announce(live === this.refused ? live.refusal : endingOf(live));
    this.changed();
    await this.readList();
  }

  async stop(live) {
    try {
      await request("POST", `/api/v1/runs/${live.runId}/cancel`);
    } catch (error) {
      this.announce(error.message); // it has ended
    }
  }

  // Goes on with the run that this tab followed before it was loaded again.
  async resume() {
    const open = recall("sessionStorage", OPEN_RUN);
    if (!open) return;
    const { run_id: runId, thread_id: threadId, text, request } = JSON.parse(open);
    const live = new LiveRun(text, request);
    Object.assign(live, { runId, threadId, state: "running" });
    this.runs.push(live);
    this.build();
    try {
      for await (const item of follow(runId)) if (live.take(item)) this.changed();
    } catch (error) {
      if (error instanceof ApiError && error.status === 404) live.isUnknown = true; // the server no longer has this run
      else live.error = error.message;
    }
    if (live.ended === null) live.end("done");
    await this.finish(live);
  }

  announce(text) {
    this.announcement = text;
    this.changed();
  }

  // Feedback

  async readRatings() {
    const { threadId, ratings } = this;
    if (!this.reader) return;
    let after = null;
    try {
      do {
        const page = await getJson(`/api/v1/threads/${threadId}/feedback`, { limit: 1000, after });
        if (ratings !== this.ratings) return; // another conversation was opened, or this one with another key
        for (const one of page.feedback) ratings.set(one.event_id, one);
        after = page.next;
      } while (after);
    } catch (error) {
      if (error.status !== 501 && !this.threadProblem) this.threadProblem = error.message;
    }
    this.changed();
  }

  async rate(eventId, rating, comment = null) {
    const path = `/api/v1/threads/${this.threadId}/events/${eventId}/feedback`;
    try {
      if (rating === null) {
        await request("DELETE", path);
        this.ratings.delete(eventId);
        this.announce("The rating was removed");
      } else {
        await request("PUT", path, { json: comment ? { rating, comment } : { rating } });
        this.ratings.set(eventId, { rating, comment });
        this.announce("The rating was stored");
      }
    } catch (error) {
      this.announce(error.message);
    }
  }

  // Files

  async upload(file) {
    const response = await request("POST", "/api/v1/files", {
      query: { name: file.name, ...this.owner },
      body: file,
      headers: { "content-type": file.type || "application/octet-stream" },
    });
    return response.json();
  }

  async download({ file_id, name }) {
    try {
      const response = await request("GET", `/api/v1/files/${encodeURIComponent(file_id)}`, { query: this.owner });
      saveAs(name, await response.blob());
    } catch (error) {
      this.announce(error.message);
    }
  }
}

// What a screen reader announces when a run has ended.
function endingOf(live) {
  if (live.state === "stopped") return "Stopped";
  if (live.error) return `The run failed: ${live.error}`;
  const said = live.events.flatMap((event) => {
    if (isAnswer(event)) return [`Answer: ${plainOf(event.event_data.content)}`];
    return isQuestion(event) ? [`Question: ${plainOf(textOf(event.event_data.text))}`] : [];
  });
  return said.join("\n").slice(0, 1000) || "Answer: no message";
}

function remember({ runId, threadId, text, request }) {
  keep("sessionStorage", OPEN_RUN, JSON.stringify({ run_id: runId, thread_id: threadId, text, request }));
}

function forget({ runId }) {
  const open = recall("sessionStorage", OPEN_RUN);
  if (open && JSON.parse(open).run_id === runId) keep("sessionStorage", OPEN_RUN, "");
}

function keep(storage, name, text) {
  try {
    window[storage].setItem(name, text);
  } catch {
    // the browser keeps nothing for this page
  }
}

function recall(storage, name) {
  try {
    return window[storage].getItem(name);
  } catch {
    return null;
  }
}
