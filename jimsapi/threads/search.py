"""Search in the messages of a contact, and filters of its threads: what a word is, and what a query means.

Every store uses these rules, so all stores find the same. The index of a store has words as `words_of` returns them.
"""

import re
import unicodedata
from collections.abc import Mapping
from functools import cache, lru_cache
from typing import Any, Protocol
from uuid import UUID

import msgspec

from jimsapi.threads.event import EventRow
from jimsapi.threads.facts import ThreadFacts
from jimsapi.threads.run import ThreadRecord
from jimsapi.threads.storable import load_stored, storable_text
from jimsapi.threads.window import COMM_PREFIX

MAX_QUERY = 200
"""The most characters of a query."""
MAX_TEXT = 65_536
"""The number of characters of a message that a search reads. Later words are not found, and of a word across this limit
only its beginning."""
MAX_WORDS = 10_000
"""The number of words of a message that a search reads. Later words are not found."""
MAX_WORD_BYTES = 64
"""The number of bytes of a word, in UTF-8, that a search compares."""
MAX_CONDITIONS = 8
"""The most keys of metadata that a filter may name."""

_ACCENTS = "\u0300-\u036f\u0591-\u05c7\u064b-\u065f\u0670"
"""Accents of Latin, Greek and Cyrillic letters, and the points of Hebrew and Arabic."""
_SINGLE = "\u0e00-\u0fff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\U00020000-\U0003ffff"
"""Characters of scripts that do not put spaces between words. Each is a word of its own."""

_AT_ONCE = 1024
"""The number of characters that are compared at once. One character may stand for eighteen."""
_MAX_PLAIN = 3 * MAX_TEXT
"""The most characters of a text without accents. A syllable in Korean stands for three."""

_ASCII_WORD = re.compile("[a-z0-9]+")
_ACCENT = re.compile(f"[{_ACCENTS}]")
_PIECE = re.compile(r"\w+")
_PART = re.compile(rf".{{1,{_AT_ONCE}}}(?!\w)|.{{{_AT_ONCE}}}", re.DOTALL)
"""A part of a text, which does not end within a word unless the word is longer than the part."""
_QUOTED_OR_PLAIN = re.compile(r'"([^"]*)"?|([^\s"]+)')

Phrase = tuple[str, ...]
Scalar = str | int | float | bool | None


class SearchQuery(msgspec.Struct, frozen=True):
    """What a search looks for: phrases of one or more words. All must occur in one message, or in the title."""

    phrases: tuple[Phrase, ...]


class ThreadFilter(msgspec.Struct, frozen=True):
    """Conditions for the threads of a list, all of which must hold.

    - `metadata`: the metadata of the thread has these keys with these values, which are strings, numbers, booleans or
      None. A number equals another one of the same value, and no boolean.
    - `parent`: the thread is a fork of this one.
    """

    metadata: Mapping[str, Scalar] = {}
    parent: UUID | None = None

    def accepts(self, facts: ThreadFacts, archived: bool | None) -> bool:
        """Return whether a thread with these facts meets the conditions, and is archived or not, as `archived` says.

        `archived` is None for both.
        """
        return (
            archived in (None, facts.archived_at is not None)
            and (self.parent is None or (facts.parent is not None and facts.parent.thread_id == self.parent))
            and self.accepts_metadata(facts.metadata)
        )

    def accepts_metadata(self, stored: bytes | str) -> bool:
        """Return whether the JSON text of a thread's metadata meets the conditions."""
        if not self.metadata:
            return True
        found = load_stored(stored)
        return isinstance(found, dict) and all(
            key in found and _is_same(found[key], value) for key, value in self.metadata.items()
        )


NO_FILTER = ThreadFilter()
"""The filter that every thread meets."""


class ThreadMatch(msgspec.Struct, frozen=True):
    """A thread that a search found, and its newest message that matches. None: only the title matches."""

    thread: ThreadRecord
    event: EventRow | None

    @property
    def size(self) -> int:
        """The number of bytes of the JSON text in it, which `take_sized` limits."""
        return len(self.thread.thread_config) + (0 if self.event is None else len(self.event.data or b""))


class SearchPage(msgspec.Struct, frozen=True):
    """A page of a search, newest threads first. `next` is the cursor of the next page; None on the last page."""

    matches: list[ThreadMatch]
    next: str | None


class Typed(Protocol):
    """An event with its type and the JSON text of its data."""

    @property
    def event_type(self) -> str: ...

    @property
    def data(self) -> bytes | str | None: ...


def parse_query(text: str) -> SearchQuery | None:
    """Return what a person typed as a query; None if it has no word.

    All words must occur. Words in double quotes are a phrase. What has no space between its words, such as "don't" or
    text in Chinese, is a phrase too. No text is an error of syntax.
    """
    phrases = dict.fromkeys(tuple(words_of(quoted or plain)) for quoted, plain in _QUOTED_OR_PLAIN.findall(text))
    phrases.pop((), None)
    return SearchQuery(tuple(phrases)) if phrases else None


def words_of(text: str) -> list[str]:
    """Return the words of a text in small letters and without accents, as a search compares them.

    A word is a sequence of letters and digits. In scripts without spaces between words, each character is a word. Of a
    long text, these are the words of its first `MAX_TEXT` characters, and at most `MAX_WORDS`.
    """
    text = text[:MAX_TEXT]
    words = _ASCII_WORD.findall(text.lower()) if text.isascii() else _word().findall(_plain(text))
    return [word if len(word) <= MAX_WORD_BYTES // 4 else _cut(word) for word in words[:MAX_WORDS]]


def message_text(event: Typed) -> str | None:
    """Return the text of an event `comm.*`; None if the event is another one, or has no text."""
    if event.data is None or not event.event_type.startswith(COMM_PREFIX):
        return None
    try:
        data = load_stored(event.data)
    except ValueError:  # another program stored it
        return None
    content = data.get("content") if isinstance(data, dict) else None
    return content if isinstance(content, str) else None


def text_matches(text: str | None, query: SearchQuery) -> bool:
    """Return whether all phrases of a query occur in a text."""
    if not text:
        return False
    # With a space around each word, a phrase is a part of the whole.
    whole = f" {' '.join(words_of(text))} "
    return all(f" {' '.join(phrase)} " in whole for phrase in query.phrases)


def snippet(text: str, query: SearchQuery, length: int) -> str:
    """Return about `length` characters of a text on one line, around the first word of the query that is in it.

    It looks for the word where `words_of` does. The cost grows with that part of the text alone.
    """
    at = _first_match(text[:MAX_TEXT], {word for phrase in query.phrases for word in phrase})
    begin = max(0, min(at - length // 3, len(text) - length))
    end = begin + length
    before, after = text[:begin].rfind(" ", begin - 20), text.find(" ", end, end + 20)
    # Cut at a space if there is one nearby.
    begin = before + 1 if begin and before >= 0 else begin
    end = after if after >= 0 else end
    shown = " ".join(storable_text(text[begin:end]).split())
    return f"{'…' if begin else ''}{shown}{'…' if end < len(text) else ''}"


def _first_match(text: str, wanted: set[str]) -> int:
    """Return the position of the first word of a text that is one of the words `wanted`; 0 if there is none.

    Only in the first part of the text that has such a word, each piece is compared by itself.
    """
    left = _MAX_PLAIN
    for part in _PART.finditer(text):
        words = words_of(part[0])
        if wanted.isdisjoint(words):
            left -= sum(map(len, words))
            if left <= 0:  # a search reads no more of the text
                return 0
            continue
        for piece in _PIECE.finditer(part[0]):
            if not wanted.isdisjoint(words_of(piece[0])):
                return part.start() + piece.start() + _position_inside(piece[0], wanted)
        return part.start()  # the marks in a word divide it into pieces
    return 0


def _position_inside(piece: str, wanted: set[str]) -> int:
    """Return the position of the first character that is a word `wanted`, in a script without spaces; 0 if none is."""
    characters = _spaceless().finditer(piece)
    return next((one.start() for one in characters if not wanted.isdisjoint(_words_of_character(one[0]))), 0)


@lru_cache(maxsize=4096)
def _words_of_character(character: str) -> frozenset[str]:
    return frozenset(words_of(character))


def _plain(text: str) -> str:
    """Return a text in small letters and without accents, and not much more than `_MAX_PLAIN` characters of it."""
    parts: list[str] = []
    left = _MAX_PLAIN
    for start in range(0, len(text), _AT_ONCE):
        plain = _ACCENT.sub("", unicodedata.normalize("NFKD", text[start : start + _AT_ONCE]).casefold())
        parts.append(_ACCENT.sub("", unicodedata.normalize("NFKD", plain)))
        left -= len(parts[-1])
        if left <= 0:
            break
    return "".join(parts)


@cache
def _spaceless() -> re.Pattern[str]:
    """Find characters of `_SINGLE`. Compiled at the first search, since that takes 4 ms."""
    return re.compile(f"[{_SINGLE}]")


@cache
def _word() -> re.Pattern[str]:
    """Return the pattern of a word. It is built at the first search, since it lists the marks of all scripts."""
    marks = "".join(one for one in map(chr, range(0x300, 0x20000)) if unicodedata.category(one) in ("Mn", "Mc"))
    return re.compile(f"[{_SINGLE}]|[^\\W_{_SINGLE}](?:[^\\W_{_SINGLE}]|(?![{_SINGLE}])[{marks}])*")


def _cut(word: str) -> str:
    return word.encode()[:MAX_WORD_BYTES].decode(errors="ignore")


def _is_same(found: Any, wanted: Scalar) -> bool:
    """Return whether two JSON values are the same. Python takes True for 1, and 1 for 1.0; JSON only the latter."""
    if isinstance(found, bool) or isinstance(wanted, bool):
        return found is wanted
    return isinstance(found, str | int | float | None) and found == wanted
