"""Text that anybody may have written, made safe for a terminal and measured in its columns."""

import unicodedata

_DIRECTION_MARKS = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""Characters that change the direction in which a terminal shows text."""


def clean(text: str) -> str:
    """Return a text without control characters (except line ends and tabs) and without direction marks."""
    return "".join(
        character
        for character in text
        if character in "\n\t" or not (unicodedata.category(character) == "Cc" or character in _DIRECTION_MARKS)
    )


def clean_line(text: str) -> str:
    """Return a text as `clean` does, on one line."""
    return " ".join(clean(text).split())


def cut(text: str, width: int) -> str:
    """Return the beginning of a text, at most `width` columns wide."""
    return wrap(text, width)[0]


def wrap(text: str, width: int) -> list[str]:
    """Break a text into rows of at most `width` columns, between any two characters.

    A row may be narrower on the screen, since a terminal draws some characters over others. It is never wider.
    """
    rows = []
    for line in text.split("\n"):
        start = used = 0
        for index, character in enumerate(line):
            columns = 2 if unicodedata.east_asian_width(character) in "WF" else 1
            if used + columns > width and index > start:
                rows.append(line[start:index])
                start, used = index, 0
            used += columns
        rows.append(line[start:])
    return rows
