// Gives the focus to something else when what had it goes away, once that is rendered.

import { showBeginning } from "./scroll.js";

const PAUSE = 50; // milliseconds

let timer = null;

export function focusMessage() {
  focusSoon("#message");
}

export function focusTitle() {
  focusSoon("h2");
}

// Gives the focus to a new question: to the message field if a typed text can answer it, or else to the question itself.
// It never goes to a button, which the next key that a person presses would choose. If the focus is elsewhere, or the
// person is writing something, it stays there.
export function focusQuestion(question, isTyped) {
  const { activeElement: active } = document;
  const isFree = active === document.body || (active.id === "message" && active.value === "");
  if (!isFree || document.querySelector("dialog[open]")) return;
  clearTimeout(timer);
  if (isTyped) return document.querySelector("#message")?.focus();
  question.focus({ preventScroll: true });
  showBeginning();
}

function focusSoon(selector) {
  clearTimeout(timer);
  timer = setTimeout(() => document.querySelector(selector)?.focus(), PAUSE);
}
