"""Grammars: phrases of a language, and the query that each of them means."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from functools import cached_property
from typing import TypeVar

from .lists import ListError, MixedError, Role, Terms, read_list
from .names import Match, Names
from .query import Query, Subject
from .sentence import Sentence, ascii_umlauts, word_form

_Value = TypeVar("_Value")


class Language(Enum):
    """A language that has a grammar and wording."""

    ENGLISH = auto()
    GERMAN = auto()


class Reason(Enum):
    """Why a message has no answer, if more is known than that it was not understood."""

    REFERENCE = auto()  # a word such as "they" or "else" refers to something that is not known
    DEGREE = auto()  # how much somebody likes something
    SEVERAL = auto()  # more than one question
    DISLIKE = auto()  # what somebody dislikes
    POPULAR_PERSON = auto()  # how popular a person is
    MIXED = auto()  # "and" and "or", or "not" and "and", of which the order is open
    OTHER_FACTS = auto()  # facts that are neither names nor interests
    FOLLOW_UP = auto()  # a follow-up to a question with several names, of which one would have to be replaced
    TOO_LONG = auto()  # a message that is longer than questions are


class Talk(Enum):
    """A message that is not a question about the data."""

    GREETING = auto()
    THANKS = auto()
    GOODBYE = auto()
    HELP = auto()


@dataclass(frozen=True)
class Linked:
    """The names of a list: see `Terms`."""

    all: tuple[Match, ...] = ()
    any: tuple[Match, ...] = ()
    one: tuple[Match, ...] = ()
    none: tuple[Match, ...] = ()
    terms: Terms = field(default_factory=Terms)


class NoMeaningError(Exception):
    """A phrase fits, but has no meaning with these words."""


class Found:
    """A phrase that fits a sentence: its groups, and the names in them."""

    def __init__(
        self, groups: Mapping[str, str | None], sentence: Sentence, names: Mapping[Subject, Names], grammar: "Grammar"
    ) -> None:
        self._groups = groups
        self._sentence = sentence
        self._names = names
        self._grammar = grammar

    def has(self, group: str) -> bool:
        """Whether the sentence has this part of the phrase."""
        return bool(self._groups.get(group))

    def linked(self, group: str, subject: Subject) -> Linked:
        """Return the names in a list. Raises `ListError`."""
        terms = read_list(self._text(group), self._grammar.roles)
        return Linked(
            all=self._matches(terms.all, subject),
            any=self._matches(terms.any, subject),
            one=self._matches(terms.one, subject),
            none=self._matches(terms.none, subject),
            terms=terms,
        )

    def plain(self, group: str, subject: Subject) -> tuple[Match, ...]:
        """Return the names in a list that has only names and "and"; none if the sentence lacks it."""
        if not self.has(group):
            return ()
        linked = self.linked(group, subject)
        if not linked.terms.is_plain:
            raise ListError
        return linked.all

    def number(self, group: str) -> int:
        """Return a number in digits or words."""
        text = self._text(group)
        return int(text) if text.isdecimal() else _keyed_by_form(self._grammar.numbers)[text]

    def comparison(self, group: str) -> str:
        """Return the sign of a word such as "more than"."""
        return _keyed_by_form(self._grammar.comparisons)[self._text(group)]

    def _text(self, group: str) -> str:
        text = self._groups.get(group)
        if text is None:
            raise NoMeaningError
        return text

    def _matches(self, places: Sequence[int], subject: Subject) -> tuple[Match, ...]:
        return tuple(self._names[subject].find_owner(self._sentence.written[place]) for place in places)


Meaning = Callable[[Found], Query]


@dataclass(frozen=True)
class Reading:
    """What a grammar reads in a message: a query, or the reason for which there is none.

    `refers_else` and `refers_also`: the question has such a word, which refers to an earlier question.
    """

    query: Query | None = None
    reason: Reason | None = None
    refers_else: bool = False
    refers_also: bool = False


@dataclass(frozen=True)
class Grammar:
    """The phrases of a language, as regular expressions over sentences of which each word is known.

    A gap in a phrase is one space, and `<1>` in a sentence is a name. No phrase has a part that fits any word, so each
    word of a question counts. `rewrites` bring words of the same meaning into one form before phrases are tried.
    `lead_in` and `closing` are words of politeness. `reasons` are words for which a question has no answer. `follow_up`
    has names in its groups, and `not_names` are words that show that they are none. `asked_at_the_end` has the question
    of a longer message in the group `asked`, and what is before it in `before`. A word of `denied` there denies it,
    refers to somebody, or asks something else.

    All words of these patterns are the vocabulary, so a pattern may not make a letter optional, as in "likes?".
    """

    language: Language
    rewrites: Sequence[tuple[str, str]]
    lead_in: str
    closing: str
    phrases: Sequence[tuple[Meaning, Sequence[str]]]
    talk: Mapping[Talk, str]
    reasons: Mapping[Reason, str]
    roles: Mapping[str, Role]
    numbers: Mapping[str, int]
    comparisons: Mapping[str, str]
    follow_up: str
    not_names: str
    asked_at_the_end: str
    denied: str

    @cached_property
    def vocabulary(self) -> frozenset[str]:
        """All words that the grammar knows, also in the spelling without umlauts."""
        return frozenset(self._spellings)

    @cached_property
    def own_words(self) -> frozenset[str]:
        """The words that the grammar's questions have, without those of the reasons."""
        return frozenset(word_form(word) for word in _words(self._texts))

    @property
    def _texts(self) -> list[str]:
        return [
            *(pattern for pattern, _ in self.rewrites),
            self.lead_in,
            self.closing,
            *(phrase for _, phrases in self.phrases for phrase in phrases),
            *self.talk.values(),
            *self.roles,
            *self.numbers,
            *self.comparisons,
            self.follow_up,
        ]

    @cached_property
    def _spellings(self) -> dict[str, str]:
        words = _words([*self._texts, *self.reasons.values()])
        spellings = {word_form(ascii_umlauts(word)): word_form(word) for word in words}
        return spellings | {word_form(word): word_form(word) for word in words}

    @cached_property
    def _compiled(self) -> list[tuple[Meaning, re.Pattern[str]]]:
        return [(meaning, _compile(phrase)) for meaning, phrases in self.phrases for phrase in phrases]

    @cached_property
    def _rewrites(self) -> list[tuple[re.Pattern[str], str]]:
        return [(_compile(rf"(?<!\S)(?:{pattern})(?!\S)"), word_forms(word)) for pattern, word in self.rewrites]

    @cached_property
    def _lead_in(self) -> re.Pattern[str]:
        return _compile(f"(?:(?:{self.lead_in})(?: [,.])* )+")

    @cached_property
    def _closing(self) -> re.Pattern[str]:
        return _compile(rf"(?: [,.])* (?:{self.closing})\Z")

    @cached_property
    def _talk(self) -> list[tuple[Talk, re.Pattern[str]]]:
        return [(talk, _compile(pattern)) for talk, pattern in self.talk.items()]

    @cached_property
    def _reasons(self) -> list[tuple[Reason, re.Pattern[str]]]:
        return [(reason, _compile(rf"(?<!\S)(?:{pattern})(?!\S)")) for reason, pattern in self.reasons.items()]

    def talk_in(self, sentence: Sentence) -> Talk | None:
        """Return what a message is that asks nothing; None if it is something else. "Thanks! Bye!" is a goodbye."""
        parts = re.split("[,.]", self._spelt(sentence).pattern)
        talks = [self._talk_in(part.strip()) for part in parts]
        return talks[-1] if all(talks) else None

    def _talk_in(self, text: str) -> Talk | None:
        return next((talk for talk, pattern in self._talk if pattern.fullmatch(text)), None)

    def read(self, sentence: Sentence, names: Mapping[Subject, Names]) -> Reading:
        """Read a question. The reading has neither a query nor a reason if no phrase fits."""
        spelt = self._spelt(sentence)
        mixed = False
        for text in self._candidates(spelt.pattern):
            for meaning, pattern in self._compiled:
                fitting = pattern.fullmatch(text)
                if fitting is None:
                    continue
                found = Found(fitting.groupdict(), spelt, names, self)
                try:
                    return Reading(meaning(found), refers_else=found.has("else"), refers_also=found.has("also"))
                except MixedError:
                    mixed = True
                except (ListError, NoMeaningError):
                    continue
        return Reading(reason=Reason.MIXED if mixed else None)

    def reason_in(self, sentence: Sentence) -> Reason | None:
        """Return why a message that no phrase fits has no answer, if one of its words says it."""
        text = self._spelt(sentence).pattern
        return next((reason for reason, pattern in self._reasons if pattern.search(text)), None)

    def _spelt(self, sentence: Sentence) -> Sentence:
        words = (self._spellings.get(word, word) for word in sentence.pattern.split())
        return Sentence(" ".join(words), sentence.written)

    def _candidates(self, text: str) -> Iterable[str]:
        """Return the text in the forms in which phrases are tried: as it is, then without words of politeness."""
        closing = self._closing.search(text)
        shorter = text[: closing.start()] if closing else text
        lead_in = self._lead_in.match(f"{shorter} ")
        bare = shorter[lead_in.end() :] if lead_in else shorter
        # A dict removes duplicates and keeps the order.
        return dict.fromkeys(map(self._rewritten, (text, shorter, bare)))

    def _rewritten(self, text: str) -> str:
        for pattern, replacement in self._rewrites:
            text = pattern.sub(replacement, text)
        # A word that was replaced by nothing leaves two spaces.
        return " ".join(text.split())


def word_forms(text: str) -> str:
    """Return a phrase with its words in the form in which words are compared."""
    return re.sub(r"[^\W\d_]+", lambda found: word_form(found[0]), text)


def _keyed_by_form(mapping: Mapping[str, _Value]) -> dict[str, _Value]:
    """Return the mapping with its words in the form in which words are compared."""
    return {word_forms(words): value for words, value in mapping.items()}


_SYNTAX = re.compile(r"(\(\?P<\w+>|\\\w)")


def _words(texts: Iterable[str]) -> set[str]:
    """Return the words of patterns: letters and apostrophes that are not syntax."""
    return {word for text in texts for word in re.findall(r"[^\W\d_]+(?:'[^\W\d_]+)?", _SYNTAX.sub("", text))}


def _compile(pattern: str) -> re.Pattern[str]:
    parts = _SYNTAX.split(pattern)
    return re.compile("".join(part if _SYNTAX.fullmatch(part) else word_forms(part) for part in parts))
