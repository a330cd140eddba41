"""A message as words and names: every word is known, or part of a name."""

import re
from collections.abc import Iterable, Set
from dataclasses import dataclass
from itertools import pairwise

from .names import APOSTROPHES, Names, fold

MAX_UNKNOWN = 10
"""The most words in a message that are neither known words nor names. A message with more is not a question."""

MAX_SEARCHES = 300
"""The most searches for similar names while one message, and those that it refers to, are read."""

_TOKEN = re.compile(r"\w+n't\b|'(?:s|re|m|d)\b|\w+|[^\w\s]", re.IGNORECASE)
_MAX_DIGITS = 4
_ENDS = ".!?…;"
_QUOTES = str.maketrans("", "", '“”„«»"')
_EMOTICON = re.compile(r"(?:(?<=\s)|\A)[:;=8]'?-?[)(DPp](?=\s|\Z)")
_UMLAUTS = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue"})


@dataclass(frozen=True)
class Sentence:
    """A message in lower case, with a `<n>` where it has a name: the `pattern`.

    `written` are these names, and `unknown` are those of them that resemble no name in the data.
    """

    pattern: str
    written: tuple[str, ...]
    unknown: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Piece:
    """A word, or some words that are a name, in a message."""

    text: str
    is_name: bool
    is_known: bool = True


def tidy(message: str) -> str:
    """Return the message as one line, with one kind of apostrophe, without quotation marks, up to its last word."""
    text = " ".join(_EMOTICON.sub("", message.translate(APOSTROPHES).translate(_QUOTES)).split())
    return text.lstrip("¿¡ ").rstrip(" ?!.…,;:")


def word_form(word: str) -> str:
    """Return the form in which words are compared: lower case and without accents, but with apostrophes."""
    return "'".join(map(fold, word.split("'"))) if "'" in word else fold(word)


def ascii_umlauts(word: str) -> str:
    """Return the word as people write it who have no umlauts on their keyboard: "moegen"."""
    return word.casefold().translate(_UMLAUTS)


class Budget:
    """The number of searches for similar names that a conversation may still cause: they read all names."""

    def __init__(self) -> None:
        self._left = MAX_SEARCHES

    def spend(self) -> bool:
        """Take one search; False if none is left."""
        self._left -= 1
        return self._left >= 0


class Reader:
    """Splits messages into known words and names."""

    def __init__(self, vocabulary: Set[str], people: Names, interests: Names, budget: Budget) -> None:
        self._vocabulary = vocabulary
        self._budget = budget
        self._similar: dict[str, bool] = {}
        self._kinds = (people, interests)
        self._longest = max(people.most_words, interests.most_words) + 1

    def read(self, text: str, *, words_first: bool = False, joined: bool = False) -> Sentence | None:
        """Split a tidy text. Returns None if too many words of it are unknown.

        `words_first`: a name that consists of known words, such as the interest "Love", is read as words.
        `joined`: names without a word between them are read as one name.
        """
        spans = [found.span() for found in _TOKEN.finditer(text)]
        tokens = [text[start:end] for start, end in spans]
        known = [self._is_known(token) for token in tokens]
        if known.count(False) > MAX_UNKNOWN:
            return None
        pieces = self._cheapest(text, spans, known, words_first)
        if joined and any(
            one.is_name and other.is_name and self._has_exact((one, other)) for one, other in pairwise(pieces)
        ):
            # "Quokkas today" is no other interest than Quokkas.
            return None
        return _sentence(_join_names(pieces, joined))

    def _has_exact(self, pieces: Iterable[_Piece]) -> bool:
        return any(self._is_exact(piece.text) for piece in pieces)

    def _is_known(self, token: str) -> bool:
        is_number = token.isdecimal() and len(token) <= _MAX_DIGITS
        return is_number or not token[0].isalnum() or word_form(token) in self._vocabulary

    def _cheapest(self, text: str, spans: list[tuple[int, int]], known: list[bool], words_first: bool) -> list[_Piece]:
        """Return the reading with the fewest unknown words, then the fewest similar names, then the fewest pieces."""
        best: list[tuple[int, int, int, _Piece | None]] = [(0, 0, 0, None)]
        for end in range(1, len(spans) + 1):
            options = []
            for start in range(max(0, end - self._longest), end):
                span = text[spans[start][0] : spans[end - 1][1]]
                cost, piece = self._piece(span, known[start:end], words_first)
                if piece is not None:
                    options.append((best[start][0] + cost, best[start][1] + 1, start, piece))
            best.append(min(options, key=lambda option: option[:2]))
        pieces = []
        end = len(spans)
        while end:
            _, _, end, found = best[end]
            assert found is not None
            pieces.append(found)
        return pieces[::-1]

    def _piece(self, span: str, known: list[bool], words_first: bool) -> tuple[int, _Piece | None]:
        """Return the cost of these words as one piece, and the piece; no piece if they are several."""
        is_words = all(known)
        if not (is_words and words_first) and self._is_exact(span):
            return 0, _Piece(span, is_name=True)
        if not is_words and span[0].isalnum() and span[-1].isalnum() and self._is_similar(span):
            return 1, _Piece(span, is_name=True)
        if len(known) > 1:
            return 0, None
        if is_words:
            return 0, _Piece(span, is_name=False)
        return 10, _Piece(span, is_name=True, is_known=False)

    def _is_exact(self, span: str) -> bool:
        """Whether this is a name. A sign at its start or end, such as a comma, must belong to the name."""
        found = [name for name in (names.known(span) for names in self._kinds) if name]
        return any(
            all(sign.isalnum() or sign == own for sign, own in ((span[0], name[0]), (span[-1], name[-1])))
            for name in found
        )

    def _is_similar(self, span: str) -> bool:
        """Whether this may be a name with a slip. The slip may not be in a known word: "not Mosaic" is not "Mosaic"."""
        if span not in self._similar:
            self._similar[span] = self._budget.spend() and self._resembles_a_name(span)
        return self._similar[span]

    def _resembles_a_name(self, span: str) -> bool:
        words = {word for word in fold(span).split() if word in self._vocabulary}
        for names in self._kinds:
            match = names.find(span)
            found = [match.name] if match.name else [*match.candidates]
            if found and all(words <= set(fold(name).split()) for name in found):
                return True
        return False


def _join_names(pieces: list[_Piece], joined: bool) -> list[_Piece]:
    """Join the unknown words of one name."""
    result: list[_Piece] = []
    for piece in pieces:
        last = result[-1] if result else None
        if last and last.is_name and piece.is_name and (joined or not (last.is_known or piece.is_known)):
            result[-1] = _Piece(f"{last.text} {piece.text}", is_name=True, is_known=False)
        else:
            result.append(piece)
    return result


def _sentence(pieces: list[_Piece]) -> Sentence:
    words: list[str] = []
    written: list[str] = []
    for piece in pieces:
        if piece.is_name:
            words.append(f"<{len(written)}>")
            written.append(piece.text)
        elif piece.text in _ENDS:
            words.append(".")
        elif piece.text == ":":
            words.append(",")
        elif piece.text == "'":
            words.append("'s")
        elif piece.text == "&":
            words.append("and")
        else:
            words.append(word_form(piece.text))
    # Signs at the end, such as smileys, say nothing.
    while words and not words[-1][-1].isalnum() and words[-1][0] != "<":
        words.pop()
    unknown = tuple(piece.text for piece in pieces if not piece.is_known)
    return Sentence(" ".join(words), tuple(written), unknown)
