// Gives the focus to the message field when what had it goes away.

export function focusMessage() {
  document.getElementById("message")?.focus();
}
