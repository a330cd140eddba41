"""A replay as lines of text: one for each turn, the differences of the changed turns, and a summary.

Anybody may have written the stored text, so every part of it is cleaned: it cannot control the terminal.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import Any

import click

from jimsapi.cli.differences import Piece, Row, near_changes, side_by_side
from jimsapi.cli.terminal.text import clean, clean_line
from jimsapi.runs.replay import ReplayedTurn, Usage
from jimsapi.threads.storable import storable_text

CONTEXT = 2
"""The lines around a change that are shown, too."""
LONGEST_SAME, LONGEST_CHANGED = 100, 400
"""The characters of a part of a line that both answers have, and of a part that differs. Longer parts are cut."""

_GAP = Row("…", "…")


def turn_line(turn: ReplayedTurn, *, colour: bool = False) -> str:
    """Return the line of a turn: its conversation and number, whether it has changed, its tokens and its seconds."""
    result = _style("changed", colour, fg="yellow") if turn.changed else "same   "
    tokens = f"{turn.old.usage.tokens:>6} → {turn.new.usage.tokens:<6}"
    seconds = f"{seconds_text(turn.old.seconds):>7} → {seconds_text(turn.new.seconds)}"
    return f"{clean_line(turn.conversation)} {turn.number:>4}  {result}  {tokens} tokens {seconds} s"


def difference_lines(turn: ReplayedTurn, *, colour: bool = False) -> list[str]:
    """Return the differences of a turn: lines of the stored answer begin with `-`, those of the new one with `+`."""
    heading = f"{clean_line(turn.conversation)} {turn.number}"
    message = cut(clean_line(storable_text(turn.message)), LONGEST_CHANGED)
    lines = [_style(heading, colour, bold=True), f"  > {message}"]
    rows = [_GAP if row is None else row for row in near_changes(side_by_side(turn.old_lines, turn.new_lines), CONTEXT)]
    for changed, group in groupby(rows, lambda row: row.changed):
        lines += _block(list(group), changed, colour)
    return lines


def summary_lines(turns: Sequence[ReplayedTurn]) -> list[str]:
    """Return how many turns have changed, and the sums of tokens, costs and seconds."""
    changed = sum(turn.changed for turn in turns)
    conversations = len({turn.conversation for turn in turns})
    old, new = [turn.old for turn in turns], [turn.new for turn in turns]
    old_usage, new_usage = (sum((answer.usage for answer in answers), Usage()) for answers in (old, new))
    old_seconds, new_seconds = (sum(answer.seconds or 0.0 for answer in answers) for answers in (old, new))
    figures = [f"{old_usage.tokens} → {new_usage.tokens} tokens", f"{old_seconds:.2f} → {new_seconds:.2f} s"]
    if old_usage.cost is not None or new_usage.cost is not None:
        figures.append(f"{cost_text(old_usage.cost)} → {cost_text(new_usage.cost)} dollars")
    count = f"{_count_text(len(turns), 'turn')} of {_count_text(conversations, 'conversation')}"
    return [f"{count}: {changed} changed, {len(turns) - changed} the same", ", ".join(figures)]


def report(turns: Sequence[ReplayedTurn]) -> str:
    """Return the summary and the differences of all changed turns as one text."""
    lines = summary_lines(turns)
    for turn in turns:
        if turn.changed:
            lines += ["", *difference_lines(turn)]
    return "\n".join(lines)


def seconds_text(seconds: float | None) -> str:
    """Return a time for people."""
    return "?" if seconds is None else f"{seconds:.2f}"


def cost_text(cost: float | None) -> str:
    """Return a cost in dollars for people."""
    return "?" if cost is None else f"{cost:.4f}"


def cut(text: str, longest: int) -> str:
    """Return a text with `…` in place of its middle if it is longer than `longest` characters."""
    half = longest // 2
    return text if len(text) <= longest else f"{text[:half]} … {text[-half:]}"


def _count_text(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _block(rows: Sequence[Row], changed: bool, colour: bool) -> Iterator[str]:
    """Yield the lines of rows that have all changed, or have all not changed. Old lines come before new ones."""
    pairs = [row.pieces() for row in rows]
    if not changed:
        yield from (f"    {_render_pieces(new, colour)}" for _, new in pairs)
        return
    for row, (old, _) in zip(rows, pairs, strict=True):
        if row.old is not None:
            yield _style("  - ", colour, fg="red") + _render_pieces(old, colour, fg="red")
    for row, (_, new) in zip(rows, pairs, strict=True):
        if row.new is not None:
            yield _style("  + ", colour, fg="green") + _render_pieces(new, colour, fg="green")


def _render_pieces(pieces: Iterable[Piece], colour: bool, **style: Any) -> str:
    rendered = ""
    for text, changed in pieces:
        part = cut(clean(storable_text(text)), LONGEST_CHANGED if changed else LONGEST_SAME)
        rendered += _style(part, colour, bold=changed or None, **style)
    return rendered


def _style(text: str, colour: bool, **style: Any) -> str:
    return click.style(text, **style) if colour else text
