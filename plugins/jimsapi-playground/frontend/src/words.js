// Texts for a screen reader and for lists.

import { INLINE } from "./markdown.jsx";

const BESIDE = /^\s{0,3}(?:```|~~~|\|[\s:|-]+\|\s*$)/; // a fence, and the line below the head of a table
const MARK = /^\s*(?:#{1,6}\s+|>\s?|[-*+]\s+)/;
const LONGEST = 1000; // characters

export function counted(number, name) {
  return `${number} ${name}${number === 1 ? "" : "s"}`;
}

// The beginning of a Markdown text, without its marks.
export function plainOf(markdown) {
  const lines = markdown.slice(0, 2 * LONGEST).trim().split("\n");
  const kept = lines.length > 1 ? lines.filter((line) => !BESIDE.test(line)) : lines;
  return kept.map((line) => plainLine(line)).join("\n").trim().slice(0, LONGEST);
}

function plainLine(line) {
  const text = withoutMarks(line.replace(MARK, ""));
  if (!/^\s*\|/.test(text)) return text;
  return text.split("|").map((cell) => cell.trim()).filter(Boolean).join(", ");
}

function withoutMarks(line) {
  return line.replace(INLINE, (...found) => {
    const { inner, text, bare, strong, em, em2 } = found.at(-1);
    return inner ?? text ?? bare ?? withoutMarks(strong ?? em ?? em2);
  });
}
