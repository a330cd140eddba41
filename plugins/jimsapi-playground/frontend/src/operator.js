// What an operator does with runs, contacts and threads. The caller needs the scope `threads`.

import { ApiError, getJson, request } from "./api.js";
import { Listing } from "./listing.js";
import { saveAs } from "./save.js";
import { counted } from "./words.js";

const EVENTS = 1000;
const RATINGS = 1000;

export class Operator {
  // The session has the contact that the page uses, and announces what has happened.
  constructor(session) {
    const changed = () => session.changed();
    this.session = session;
    this.runs = new Listing("/api/v1/runs", "runs", changed);
    this.contacts = new Listing("/api/v1/contacts", "contacts", changed);
    this.status = "";
    this.contact = null; // of the runs that are listed; null for those of all contacts
    this.needsContact = false; // the server admits everybody
    this.details = new Map(); // {run} or {problem} of a run that is shown, by its identifier
  }

  async showRuns(status = this.status, contact = this.contact) {
    this.status = status;
    this.contact = contact;
    await this.read(this.runs, { status: status || null, contact_id: contact });
  }

  async showContacts() {
    await this.read(this.contacts, {});
  }

  // Reads a list of all contacts, or, where the server refuses that, of the contact that the page uses.
  async read(listing, query) {
    const { session } = this;
    const given = { ...query };
    if (this.needsContact) given.contact_id ??= session.contact;
    try {
      await listing.read(given);
    } catch (error) {
      if (session.asksForKey(error)) return;
      if (error.status === 422 && !("contact_id" in withValues(given)) && !session.isBound && session.contact) {
        this.needsContact = true;
        return this.read(listing, query);
      }
    }
    if (session.view !== listing.field) return; // the person has left the list
    session.announce(listing.problem || counted(listing.items.length, listing.field.replace(/s$/, "")));
  }

  async more(listing) {
    try {
      await listing.readMore();
    } catch (error) {
      this.session.asksForKey(error); // the list has the problem
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
      if (this.session.asksForKey(error)) return;
      this.details.set(runId, { problem: error.message });
    }
    this.session.changed();
  }

  async cancel(runId) {
    const { session } = this;
    let said = "The run was cancelled";
    try {
      await request("POST", `/api/v1/runs/${runId}/cancel`);
      this.details.delete(runId); // they are those of an open run
    } catch (error) {
      if (session.asksForKey(error)) return;
      said = `The run was not cancelled: ${error.message}`;
      this.details.set(runId, { problem: said });
    }
    await this.showRuns();
    session.announce(said);
  }

  // Saves a thread as `jimsapi threads export` does.
  async exportThread(threadId) {
    const { session } = this;
    session.setProblem(threadId, "");
    try {
      const head = await getJson(`/api/v1/threads/${threadId}`);
      const events = await all(`/api/v1/threads/${threadId}/events`, "events", EVENTS);
      const feedback = await this.feedback(threadId);
      const text = JSON.stringify({ ...head, events, feedback, next: null }, null, 1);
      saveAs(`thread-${threadId}.json`, new Blob([text], { type: "application/json" }));
      session.announce(`Saved ${counted(events.length, "event")}`);
    } catch (error) {
      if (!session.asksForKey(error)) session.setProblem(threadId, `The conversation was not saved: ${error.message}`);
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
      if (!session.asksForKey(error)) session.setProblem(threadId, `The conversation was not deleted: ${error.message}`);
      return;
    }
    session.leave(threadId);
    session.announce("The conversation was deleted");
  }
}

function withValues(query) {
  return Object.fromEntries(Object.entries(query).filter(([, value]) => value !== null));
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
