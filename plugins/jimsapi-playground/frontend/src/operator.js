// What an operator does with runs, contacts and threads. The caller needs the scope `threads`.

import { ApiError, getJson, request } from "./api.js";
import { Listing } from "./listing.js";
import { saveAs } from "./save.js";

const EVENTS = 1000;
const RATINGS = 1000;

export class Operator {
  // `session` is asked for the contact where the server lists nothing without one, and told what happened.
  constructor(session) {
    const changed = () => session.changed();
    this.session = session;
    this.runs = new Listing("/api/v1/runs", "runs", changed);
    this.contacts = new Listing("/api/v1/contacts", "contacts", changed);
    this.status = "";
    this.contact = "";
    this.needsContact = false; // the server admits everybody
    this.details = new Map(); // what the server says of a run that is shown, by its identifier
  }

  async showRuns(status = this.status, contact = this.contact) {
    this.status = status;
    this.contact = contact.trim();
    this.details = new Map();
    await this.read(this.runs, { status: this.status, contact_id: this.contact });
  }

  async showContacts() {
    await this.read(this.contacts, {});
  }

  // Reads a list of all contacts, or, where the server refuses that, of the contact that the page uses.
  async read(listing, query) {
    const { session } = this;
    const given = { ...query };
    if (!given.contact_id && this.needsContact) given.contact_id = session.contact;
    try {
      await listing.read(given);
    } catch (error) {
      if (error.status === 401) return session.ask("The server does not accept this key.");
      if (error.status === 422 && !given.contact_id && !session.isBound && session.contact) {
        this.needsContact = true;
        return this.read(listing, query);
      }
    }
    session.announce(listing.problem || `${listing.items.length} ${listing.field}`);
  }

  async more(listing) {
    try {
      await listing.readMore();
    } catch {
      // the list has the problem
    }
  }

  async toggle(runId) {
    if (this.details.delete(runId)) return this.session.changed();
    await this.look(runId);
  }

  async look(runId) {
    try {
      this.details.set(runId, { run: await getJson(`/api/v1/runs/${runId}`) });
    } catch (error) {
      this.details.set(runId, { problem: error.message });
    }
    this.session.changed();
  }

  async cancel(runId) {
    try {
      await request("POST", `/api/v1/runs/${runId}/cancel`);
      this.session.announce("The run is being cancelled");
    } catch (error) {
      this.session.announce(error.message); // it has ended
    }
    await this.showRuns();
  }

  // Saves a thread as `jimsapi threads export` does.
  async exportThread(threadId) {
    const { session } = this;
    try {
      const head = await getJson(`/api/v1/threads/${threadId}`);
      const events = await all(`/api/v1/threads/${threadId}/events`, "events", EVENTS);
      const feedback = await this.feedback(threadId);
      const text = JSON.stringify({ ...head, events, feedback, next: null }, null, 1);
      saveAs(`thread-${threadId}.json`, new Blob([text], { type: "application/json" }));
      session.announce(`${events.length} events were saved`);
    } catch (error) {
      session.announce(error.message);
      session.threadProblem = `The thread was not saved: ${error.message}`;
      session.changed();
    }
  }

  async feedback(threadId) {
    try {
      return await all(`/api/v1/threads/${threadId}/feedback`, "feedback", RATINGS);
    } catch (error) {
      if (error instanceof ApiError && error.status === 501) return []; // the store keeps none
      throw error;
    }
  }

  async deleteThread(threadId) {
    const { session } = this;
    try {
      await request("DELETE", `/api/v1/threads/${threadId}`);
    } catch (error) {
      session.threadProblem = `The conversation was not deleted: ${error.message}`;
      return session.announce(session.threadProblem);
    }
    session.leave(threadId);
    session.announce("The conversation was deleted");
  }
}

async function all(path, field, limit) {
  const found = [];
  let after = null;
  do {
    const page = await getJson(path, { limit, after });
    found.push(...page[field]);
    after = page.next;
  } while (after);
  return found;
}
