// Gives the focus to something else when what had it goes away, once that is rendered.

const PAUSE = 50; // milliseconds

let timer = null;

export function focusMessage() {
  focusSoon("#message");
}

export function focusTitle() {
  focusSoon("h2");
}

// Gives the focus to the first question, which is rendered, unless the person is writing something or a dialog is open.
export function focusQuestion() {
  const { activeElement: active } = document;
  const isWriting = active.matches("input, textarea, select") && (active.id !== "message" || active.value !== "");
  if (isWriting || document.querySelector("dialog[open]")) return;
  clearTimeout(timer);
  document.querySelector(".question :is(button, input, select, textarea)")?.focus();
}

function focusSoon(selector) {
  clearTimeout(timer);
  timer = setTimeout(() => document.querySelector(selector)?.focus(), PAUSE);
}
