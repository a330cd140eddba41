// The events of a thread. The server lists them oldest first, so the reader walks to the end once, remembers where each
// page begins, and keeps only the newest pages. Reading again begins with the last page.

import { getJson } from "./api.js";

const PAGE = 1000;
const KEPT = 2;

export class ThreadReader {
  constructor(threadId) {
    this.threadId = threadId;
    this.begins = [null]; // the cursor of each page
    this.pages = new Map(); // the events of the pages that are kept, by number
  }

  get events() {
    return [...this.pages.keys()].sort((a, b) => a - b).flatMap((number) => this.pages.get(number));
  }

  get first() {
    return Math.min(...this.pages.keys());
  }

  get hasEarlier() {
    return this.pages.size > 0 && this.first > 0;
  }

  // Reads from the last known page to the end. `onPage` gets the number of events that were passed.
  async readToEnd(onPage) {
    for (;;) {
      const number = this.begins.length - 1;
      const page = await this.read(number);
      if (!page.next) return;
      this.begins.push(page.next);
      for (const kept of [...this.pages.keys()]) if (kept <= number - KEPT) this.pages.delete(kept);
      onPage?.((number + 1) * PAGE);
    }
  }

  async readEarlier() {
    if (this.hasEarlier) await this.read(this.first - 1);
  }

  async read(number) {
    const query = { limit: PAGE, after: this.begins[number] };
    const page = await getJson(`/api/v1/threads/${this.threadId}/events`, query);
    this.pages.set(number, page.events);
    return page;
  }
}
