// A list of the server that is read in pages. `items` has all that were read, `problem` why a page was refused.

import { getJson } from "./api.js";

const PAGE = 50;
const MOST_PAGES = 20; // empty ones that follow each other

export class Listing {
  constructor(path, field, onChange) {
    this.path = path;
    this.field = field;
    this.onChange = onChange;
    this.items = [];
    this.next = null;
    this.problem = "";
    this.isReading = false;
    this.query = {};
  }

  // Reads the first page of what meets the query. Throws the error of a page that is refused; the list is empty then.
  async read(query = this.query) {
    this.query = { ...query }; // another object for each reading: pages of earlier ones that arrive later are left out
    await this.readPage(null);
  }

  async readMore() {
    if (!this.isReading) await this.readPage(this.next);
  }

  // The next page that is not empty, or the last one: a page may be empty although others follow. After many empty pages
  // it stops, and the person can go on.
  async nextWithItems(query, after) {
    for (let pages = 1; ; pages += 1) {
      const page = await getJson(this.path, { limit: PAGE, after, ...query });
      if (page[this.field].length || !page.next || pages === MOST_PAGES || query !== this.query) return page;
      after = page.next;
    }
  }

  // Reads no further pages: the list is no longer shown.
  stop() {
    this.query = { ...this.query };
    this.isReading = false;
  }

  async readPage(after) {
    const { query } = this;
    this.isReading = true;
    this.onChange();
    try {
      const page = await this.nextWithItems(query, after);
      if (query !== this.query) return; // a later reading has begun
      this.items = after ? [...this.items, ...page[this.field]] : page[this.field];
      this.next = page.next;
      this.problem = "";
    } catch (error) {
      if (query !== this.query) return;
      this.problem = error.message;
      if (!after) Object.assign(this, { items: [], next: null });
      throw error;
    } finally {
      if (query === this.query) this.isReading = false;
      this.onChange();
    }
  }
}
