// A text that arrives in pieces. Who shows it adds what is new, and does not render again what is there.

export class Pieces {
  constructor() {
    this.parts = [];
    this.readers = new Set();
  }

  push(piece) {
    this.parts.push(piece);
    for (const reader of this.readers) reader(piece);
  }

  get text() {
    if (this.parts.length > 1) this.parts = [this.parts.join("")];
    return this.parts[0] ?? "";
  }
}
