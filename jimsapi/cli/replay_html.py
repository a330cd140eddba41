"""A replay as a page: one HTML file that needs no other file and runs no script.

Anybody may have written the stored text, so every part of it is cleaned and escaped. The policy in the page's head
forbids scripts and requests, whatever the page has.
"""

from collections.abc import Iterable, Sequence
from html import escape
from itertools import groupby

from jimsapi.cli.differences import Piece, Row, side_by_side
from jimsapi.cli.replay_text import cost_text, cut, seconds_text, summary_lines
from jimsapi.cli.terminal.text import clean
from jimsapi.runs.replay import ReplayedTurn
from jimsapi.threads.storable import storable_text

LONGEST_SAME, LONGEST_CHANGED = 2000, 20_000
"""The characters of a part of a line that both answers have, and of a part that differs. Longer parts are cut."""
LONGEST_IN_TABLE = 120
"""The characters of a message in the table of all turns."""

_STYLE = """
:root { color-scheme: light dark; --text: #1c2430; --back: #fff; --soft: #5c6778; --line: #d8dee6; --head: #f3f6f9;
  --old: #ffeceb; --old-word: #ffb9b3; --new: #e6f6ea; --new-word: #9fdcae; --mark: #b35900; }
@media (prefers-color-scheme: dark) { :root { --text: #dfe5ec; --back: #14181e; --soft: #95a1b1; --line: #333c48;
  --head: #1d232b; --old: #3a1f20; --old-word: #7d3331; --new: #17301f; --new-word: #2a6b3d; --mark: #ffb057; } }
body { margin: 2rem auto; max-width: 64rem; padding: 0 1rem; color: var(--text); background: var(--back);
  font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.4rem; margin: 0 0 .3rem; } h2 { font-size: 1.1rem; margin: 2.2rem 0 .6rem; }
h3 { font-size: .95rem; margin: 1.4rem 0 .1rem; } p { margin: .2rem 0; }
.soft { color: var(--soft); font-weight: 400; }
nav { display: flex; flex-wrap: wrap; gap: 4px; margin: .8rem 0; }
.box { min-width: 1.6rem; padding: .1rem .25rem; border: 1px solid var(--line); border-radius: 3px;
  text-align: center; font-size: .8rem; text-decoration: none; color: var(--soft); }
.box.changed { color: #fff; background: #c25e00; border-color: #c25e00; }
table { width: 100%; border-collapse: collapse; } a { color: inherit; }
th { background: var(--head); font-weight: 600; text-align: left; }
th, td { border: 1px solid var(--line); padding: .25rem .55rem; vertical-align: top; }
td, .message { white-space: pre-wrap; overflow-wrap: anywhere; unicode-bidi: isolate; }
.figures { white-space: nowrap; text-align: right; font-variant-numeric: tabular-nums; }
.changed { color: var(--mark); font-weight: 600; }
.diff { table-layout: fixed; } .diff td { font: 13px/1.5 ui-monospace, monospace; }
td.old { background: var(--old); } td.new { background: var(--new); }
del, ins { text-decoration: none; border-radius: 2px; } del { background: var(--old-word); }
ins { background: var(--new-word); }
"""

_HEAD = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Replay</title>
<style>{style}</style>
</head>
<body>
<h1>Replay with <code>{app}</code></h1>
"""


def page(turns: Sequence[ReplayedTurn], app: str) -> str:
    """Return the page: a summary, the differences of the changed turns, and a table of all turns.

    `app` is the reference of the app that has answered again.
    """
    parts = [_HEAD.format(style=_STYLE, app=_text(app))]
    parts += [f"<p>{_text(line)}</p>\n" for line in summary_lines(turns)]
    parts.append(_overview(turns))
    changed = [(number, turn) for number, turn in enumerate(turns) if turn.changed]
    if changed:
        parts.append("<h2>Changed turns</h2>\n")
        parts += [_section(number, turn) for number, turn in changed]
    parts.append("<h2>All turns</h2>\n")
    parts.append(_table(turns))
    return "".join([*parts, "</body>\n</html>\n"])


def _overview(turns: Iterable[ReplayedTurn]) -> str:
    """A small box for each turn. That of a changed turn leads to its differences."""
    boxes = ""
    for number, turn in enumerate(turns):
        title = f'title="turn {turn.number} of {_text(turn.conversation)}"'
        box = f'<a class="box changed" href="#turn-{number}" {title}>' if turn.changed else f'<a class="box" {title}>'
        boxes += f"{box}{turn.number}</a>"
    return f"<nav>{boxes}</nav>\n"


def _section(number: int, turn: ReplayedTurn) -> str:
    """The differences of a turn. `number` is its position on the page."""
    rows = "".join(map(_row, side_by_side(turn.old_lines, turn.new_lines)))
    message = _text(cut(turn.message, LONGEST_SAME))
    return (
        f'<section id="turn-{number}">\n<h3>Turn {turn.number} <span class="soft">of {_text(turn.conversation)}, '
        f'{_figures(turn)}</span></h3>\n<p class="message">{message}</p>\n'
        f'<table class="diff">\n<tr><th>Stored</th><th>Replayed</th></tr>\n{rows}</table>\n</section>\n'
    )


def _row(row: Row) -> str:
    old, new = row.pieces()
    old_class, new_class = (' class="old"', ' class="new"') if row.changed else ("", "")
    return (
        f"<tr><td{old_class if row.old is not None else ''}>{_pieces(old, 'del')}</td>"
        f"<td{new_class if row.new is not None else ''}>{_pieces(new, 'ins')}</td></tr>\n"
    )


def _pieces(pieces: Iterable[Piece], mark: str) -> str:
    """A line. The element `mark` is around its changed parts."""
    return "".join(
        f"<{mark}>{_text(cut(text, LONGEST_CHANGED))}</{mark}>" if changed else _text(cut(text, LONGEST_SAME))
        for text, changed in pieces
    )


def _table(turns: Iterable[ReplayedTurn]) -> str:
    """All turns in their order. A heading above the turns of each conversation names it."""
    rows = ""
    for name, group in groupby(enumerate(turns), lambda numbered: numbered[1].conversation):
        rows += f'<tr><th colspan="5">{_text(name)}</th></tr>\n'
        rows += "".join(_table_row(number, turn) for number, turn in group)
    heads = "".join(f"<th>{head}</th>" for head in ("Turn", "Message", "Answer", "Tokens", "Seconds"))
    return f"<table>\n<tr>{heads}</tr>\n{rows}</table>\n"


def _table_row(number: int, turn: ReplayedTurn) -> str:
    message = _text(cut(" ".join(turn.message.split()), LONGEST_IN_TABLE))
    answer = f'<a class="changed" href="#turn-{number}">changed</a>' if turn.changed else "same"
    return (
        f'<tr><td class="figures">{turn.number}</td><td>{message}</td><td>{answer}</td>'
        f'<td class="figures">{_tokens(turn)}</td><td class="figures">{_seconds(turn)}</td></tr>\n'
    )


def _figures(turn: ReplayedTurn) -> str:
    figures = [f"{_tokens(turn)} tokens", f"{_seconds(turn)} seconds"]
    if turn.old.usage.cost is not None or turn.new.usage.cost is not None:
        figures.append(f"{cost_text(turn.old.usage.cost)} → {cost_text(turn.new.usage.cost)} dollars")
    return ", ".join(figures)


def _tokens(turn: ReplayedTurn) -> str:
    return f"{turn.old.usage.tokens} → {turn.new.usage.tokens}"


def _seconds(turn: ReplayedTurn) -> str:
    return f"{seconds_text(turn.old.seconds)} → {seconds_text(turn.new.seconds)}"


def _text(text: str) -> str:
    return escape(clean(storable_text(text)))
