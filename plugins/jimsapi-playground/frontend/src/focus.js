// Gives the focus to something else when what had it goes away, once that is rendered.

export function focusMessage() {
  focusSoon("#message");
}

export function focusTitle() {
  focusSoon("h2");
}

function focusSoon(selector) {
  setTimeout(() => document.querySelector(selector)?.focus(), 50);
}
