"""The sentences of answers: what each language must have."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar

from .grammar import Reason
from .names import Match
from .query import Search, Subject

MAX_CANDIDATES = 5


class Wording(ABC):
    """The sentences of one language.

    A search is always worded in full, so that each answer shows what was read, such as "people interested in Quokkas,
    but not in Mosaic".
    """

    hello: str
    thanks: str
    goodbye: str
    no_data: str
    not_understood: str
    unknown_words: str
    quoted: str
    reasons: ClassVar[Mapping[Reason, str]]
    nobody: str
    nothing: str
    yes: str
    no: str
    one_person: str
    and_word: str
    or_word: str
    near: str
    part: str
    all_known: str
    unknown: ClassVar[Mapping[Subject, str]]
    other_kind: ClassVar[Mapping[Subject, str]]
    meant: str
    others: str
    read_as: str

    def listed(self, names: Sequence[str], word: str | None = None) -> str:
        """Return "A, B and C"."""
        return f" {word or self.and_word} ".join(filter(None, [", ".join(names[:-1]), names[-1]]))

    def did_you_mean(self, written: str, candidates: Sequence[str]) -> str:
        """Say that several names may be meant."""
        first, more = candidates[:MAX_CANDIDATES], len(candidates) - MAX_CANDIDATES
        others = [self.others.format(more)] if more > 0 else []
        return self.meant.format(written, f" {self.or_word} ".join([*first, *others]))

    @abstractmethod
    def examples(self, people: Sequence[str], interests: Sequence[str]) -> str:
        """Say what can be asked, with names from the data, of which there is at least one of each."""

    @abstractmethod
    def topics(self) -> str:
        """Say which kinds of questions can be asked."""

    @abstractmethod
    def person(self, person: str, interests: Sequence[str]) -> str:
        """Say what a person is interested in."""

    @abstractmethod
    def fans(self, interests: Sequence[str], people: Sequence[str]) -> str:
        """Say who is interested in all of these."""

    @abstractmethod
    def shared(self, people: Sequence[str], interests: Sequence[str]) -> str:
        """Say what people have in common."""

    @abstractmethod
    def described(self, search: Search) -> str:
        """Return what a search finds: "people interested in Quokkas"."""

    @abstractmethod
    def found(self, search: Search, names: Sequence[str]) -> str:
        """Say what a search found."""

    @abstractmethod
    def counted(self, search: Search, names: Sequence[str]) -> str:
        """Say how many a search found."""

    @abstractmethod
    def counted_of(self, person: str, number: int) -> str:
        """Say how many interests a person has."""

    @abstractmethod
    def checked_one(self, search: Search, person: str, is_true: bool) -> str:
        """Say whether a search finds a person, as a statement without "yes" or "no"."""

    @abstractmethod
    def checked(self, search: Search, people: Sequence[str], found: Sequence[str]) -> str:
        """Say which of several people a search finds, as a statement without "yes" or "no"."""

    @abstractmethod
    def checked_everybody(self, search: Search, found: Sequence[str], number: int) -> str:
        """Say how many of all people a search finds, as a statement without "yes" or "no"."""

    @abstractmethod
    def choice(self, person: str, offered: Sequence[str], liked: Sequence[str]) -> str:
        """Say which of several interests a person has."""

    @abstractmethod
    def ranked(self, find: Subject, most: bool, places: int, ranks: Sequence[tuple[str, int]]) -> str:
        """Say who or what has the most or fewest links."""

    @abstractmethod
    def majority(self, names: Sequence[str], number: int) -> str:
        """Say what more than half of all people like."""

    @abstractmethod
    def numbers(self, find: Subject, ranks: Sequence[tuple[str, int]]) -> str:
        """Say how many links each of several has."""

    @abstractmethod
    def compared(self, find: Subject, most: bool, winners: Sequence[str]) -> str:
        """Say which of several has the most or fewest links."""

    @abstractmethod
    def alike(self, person: str, shared: Sequence[tuple[str, int]], closest: bool) -> str:
        """Say who shares how many interests with a person."""


def names_of(matches: Sequence[Match]) -> list[str]:
    """Return the known names of matches."""
    return [match.name for match in matches if match.name]


def with_full_stop(sentence: str) -> str:
    """Return the sentence with a full stop, unless its last name ends with a punctuation mark."""
    return sentence if sentence.endswith((".", "!", "?")) else f"{sentence}."


def capital(text: str) -> str:
    """Return the text with a capital at its start."""
    return text[:1].upper() + text[1:]


def in_brackets(names: Sequence[str]) -> str:
    """Return the names in brackets, and nothing if there are none."""
    return f" ({', '.join(names)})" if names else ""


def amount_of(number: int, singular: str, plural: str) -> str:
    """Return "1 interest" or "2 interests"."""
    return f"{number} {singular if number == 1 else plural}"


def ranked_names(ranks: Sequence[tuple[str, int]]) -> str:
    """Return "A (2), B (1)"."""
    return ", ".join(f"{name} ({number})" for name, number in ranks)
