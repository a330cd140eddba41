// A run that this page follows: what it has sent so far, and when.

import { Pieces } from "./pieces.js";

const CANCELLED = "The run was cancelled"; // the server's words
const TRACED = /^(Pipeline error|Internal Server Error)/; // the errors whose cause the server logs

export class LiveRun {
  constructor(text, request) {
    this.text = text; // what the person said
    this.request = request; // the body that was sent
    this.runId = null;
    this.threadId = request.thread_id ?? null;
    this.began = performance.now();
    this.ended = null;
    this.state = "sending"; // then running, and at the end done, failed or stopped
    this.status = "";
    this.error = null;
    this.isUnknown = false;
    this.steps = [];
    this.byId = new Map();
    this.events = [];
  }

  get elapsed() {
    return (this.ended ?? performance.now()) - this.began;
  }

  get refusal() {
    return `The ${this.request.answers ? "answer was not accepted" : "message was not sent"}: ${this.error}`;
  }

  get hasTraceback() {
    return TRACED.test(this.error);
  }

  // The messages that have begun to arrive, and that are not among the events.
  unfinished(events) {
    const known = new Set(events.map(({ event_id }) => event_id));
    return this.steps.filter(({ kind, id, event }) => kind === "message" && !event && !known.has(id));
  }

  // Takes an item of the stream. Returns whether the page has to be rendered: pieces of a text only add to it.
  take({ name, data }) {
    switch (name) {
      case "started":
        this.runId = data.run_id;
        this.threadId = data.thread_id;
        this.state = "running";
        return true;
      case "status":
        this.status = data.status;
        this.steps.push({ kind: "status", text: data.status, type: data.type, at: this.elapsed });
        return true;
      case "delta":
        return this.addPiece("message", data.message_id, data.content);
      case "reasoning":
        return this.addPiece("reasoning", data.event_id, data.content);
      case "activity":
        this.step("event", data.event_id).event = data;
        return true;
      case "event":
        this.events.push({ ...data, created_at: new Date().toISOString() });
        this.step("event", data.event_id).event = data;
        return true;
      case "gap":
        this.steps.push({ kind: "gap", missed: data.missed, at: this.elapsed });
        return true;
      case "reconnecting":
        this.status = "The connection was lost. Connecting again";
        return true;
      case "result":
        this.end("done");
        return true;
      case "error":
        if (data.detail === CANCELLED) {
          this.end("stopped");
        } else {
          this.error = data.detail;
          this.end("failed");
        }
        return true;
      default:
        return false;
    }
  }

  end(state) {
    this.state = state;
    this.status = "";
    this.ended = performance.now();
  }

  step(kind, id) {
    let step = this.byId.get(id);
    if (!step) {
      step = { kind, id, at: this.elapsed, event: null, pieces: null };
      this.byId.set(id, step);
      this.steps.push(step);
    }
    return step;
  }

  addPiece(kind, id, content) {
    const step = this.step(kind, id);
    const isNew = step.pieces === null;
    if (isNew) step.pieces = new Pieces();
    step.pieces.push(content);
    return isNew;
  }
}
