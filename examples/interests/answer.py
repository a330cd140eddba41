"""Answering a message from the graph, in plain words."""

import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import singledispatchmethod

from .english_answers import English
from .german_answers import German
from .grammar import Language, Talk
from .graph import Graph, Rows
from .names import Match, Names
from .query import (
    Alike,
    Check,
    Comparison,
    Count,
    Kind,
    Profile,
    Quantity,
    Query,
    Question,
    Ranking,
    Search,
    Subject,
)
from .question import Message
from .wording import Wording, names_of

WORDINGS: Mapping[Language, Wording] = {Language.ENGLISH: English(), Language.GERMAN: German()}

MAX_UNKNOWN_SHOWN = 3


@dataclass(frozen=True)
class Answer:
    """The text of an answer, and its sources.

    `remarks` report what was read otherwise than it was written, and come before `text`. If a model may word the text,
    `names` are all rows that it contains, and `all_names` are all names of their kind in the data. A text such as "no"
    has no `names`. `cypher` are the queries that found the rows.
    """

    text: str
    remarks: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    all_names: Sequence[str] = ()
    cypher: tuple[str, ...] = ()

    def full(self, text: str | None = None) -> str:
        """Return the remarks and `text`. The default of `text` is the answer's own."""
        return " ".join([*self.remarks, text or self.text])


def answer_message(message: Message, graph: Graph) -> Answer:
    """Answer a message from the graph. If it was not understood, the answer says so and has examples."""
    words = WORDINGS[message.language]
    if message.talk is not None:
        return Answer(_small_talk(message.talk, message.language, graph))
    if message.query is None:
        return Answer(_refusal(message, words, graph))
    unknown = _unknown(message.query, words, graph)
    if unknown:
        return Answer(" ".join(unknown))
    answer = _Answering(words, graph).answer(message.query)
    remarks = _near(message.query, words)
    described = _described(message.query, words) if message.loosely else ""
    if described:
        remarks = (*remarks, words.read_as.format(described))
    return Answer(answer.text, (*remarks, *answer.remarks), answer.names, answer.all_names, answer.cypher)


def examples(graph: Graph, language: Language = Language.ENGLISH) -> str:
    """Return examples of questions, with names from the data."""
    words = WORDINGS[language]
    people, interests = graph.people.all, graph.interests.all
    return words.examples(people, interests) if people and interests else words.no_data


def _small_talk(talk: Talk, language: Language, graph: Graph) -> str:
    words = WORDINGS[language]
    if talk is Talk.THANKS:
        return words.thanks
    if talk is Talk.GOODBYE:
        return words.goodbye
    if talk is Talk.GREETING:
        return f"{words.hello} {examples(graph, language)}"
    return f"{examples(graph, language)} {words.topics()}"


def _refusal(message: Message, words: Wording, graph: Graph) -> str:
    sentences = [words.not_understood if message.reason is None else words.reasons[message.reason]]
    sentences.append(examples(graph, message.language))
    if message.reason is None and 0 < len(message.unknown) <= MAX_UNKNOWN_SHOWN:
        sentences.append(words.unknown_words.format(", ".join(words.quoted.format(word) for word in message.unknown)))
    return " ".join(sentences)


def _unknown(query: Query, words: Wording, graph: Graph) -> list[str]:
    sentences = []
    for subject, match in query.mentions():
        if match.candidates:
            sentences.append(words.did_you_mean(match.written, match.candidates))
        elif match.name is None:
            other = _names(subject.other, graph).find_owner(match.written)
            sentence = words.unknown[subject].format(match.written)
            sentences.append(words.other_kind[subject].format(match.written, other.name) if other.name else sentence)
    # A dict removes duplicates and keeps the order.
    return list(dict.fromkeys(sentences))


def _names(subject: Subject, graph: Graph) -> Names:
    return graph.people if subject is Subject.PEOPLE else graph.interests


def _near(query: Query, words: Wording) -> tuple[str, ...]:
    remarks = [_remark(match, words) for _, match in query.mentions() if not match.exact]
    return tuple(dict.fromkeys(remarks))


def _remark(match: Match, words: Wording) -> str:
    """Return the remark on a name with a slip, or on a part of a name."""
    return (words.part if match.is_part else words.near).format(match.written, match.name)


def _described(query: Query, words: Wording) -> str:
    """Return a query in words, or nothing if its answer has them anyway."""
    if isinstance(query, Question) and query.kind is Kind.FANS:
        return words.described(Search(Subject.PEOPLE, all=tuple(query.matches)))
    if isinstance(query, Question):
        return words.described(Search(Subject.INTERESTS, all=tuple(query.matches)))
    search = getattr(query, "search", None)
    if isinstance(query, Search):
        return words.described(query)
    return words.described(search) if isinstance(search, Search) else ""


def _distinct(matches: Sequence[Match]) -> list[str]:
    # A dict removes duplicates and keeps the order.
    return list(dict.fromkeys(names_of(matches)))


class _Answering:
    """Answers queries, in one language, from one graph."""

    def __init__(self, words: Wording, graph: Graph) -> None:
        self._words = words
        self._graph = graph

    @singledispatchmethod
    def answer(self, query: Query) -> Answer:
        """Answer a query of which all names are known."""
        raise TypeError(type(query))

    @answer.register
    def _question(self, query: Question) -> Answer:
        names = _distinct(query.matches)
        if query.kind is Kind.FANS:
            rows = self._graph.fans_of(names)
            return self._listed(self._words.fans(names, rows.names), [rows], self._graph.people.all)
        if query.kind is Kind.COMMON:
            return self._in_common(names)
        found = [self._graph.interests_of(person) for person in names]
        sentences = [self._words.person(person, rows.names) for person, rows in zip(names, found, strict=True)]
        return self._listed(" ".join(sentences), found, self._graph.interests.all)

    def _in_common(self, people: Sequence[str]) -> Answer:
        if len(people) == 1:
            return Answer(self._words.one_person.format(people[0]))
        rows = self._graph.interests_in_common(people)
        return self._listed(self._words.shared(people, rows.names), [rows], self._graph.interests.all)

    def _listed(self, text: str, found: Sequence[Rows], all_names: Sequence[str]) -> Answer:
        names = tuple(name for rows in found for name in rows.names)
        return Answer(text, (), names, all_names, tuple(rows.cypher for rows in found))

    @answer.register
    def _search(self, query: Search) -> Answer:
        rows = self._graph.search(query)
        return Answer(self._words.found(query, rows.names), cypher=(rows.cypher,))

    @answer.register
    def _count(self, query: Count) -> Answer:
        if query.search is not None:
            rows = self._graph.search(query.search)
            return Answer(self._words.counted(query.search, rows.names), cypher=(rows.cypher,))
        people = _distinct(query.people)
        found = [self._graph.interests_of(person) for person in people]
        sentences = [
            self._words.counted_of(person, len(rows.names)) for person, rows in zip(people, found, strict=True)
        ]
        return Answer(" ".join(sentences), cypher=tuple(rows.cypher for rows in found))

    @answer.register
    def _check(self, query: Check) -> Answer:
        rows = self._graph.search(query.search)
        people = _distinct(query.people) or self._graph.people.all
        found = [name for name in people if name in rows.names] if query.people else rows.names
        is_true = _is_true(query, len(found), len(people))
        statement = self._checked(query, people, found)
        start = "" if query.negated else f"{self._words.yes if is_true else self._words.no}: "
        return Answer(f"{start}{statement}" if start else statement[:1].upper() + statement[1:], cypher=(rows.cypher,))

    def _checked(self, query: Check, people: Sequence[str], found: Sequence[str]) -> str:
        search = query.search
        if not query.people:
            return self._words.checked_everybody(search, found, len(people))
        if len(people) > 1:
            return self._words.checked(search, people, found)
        offered = _distinct([*search.all, *search.any, *search.one, *search.none])
        if len(offered) < 2:
            return self._words.checked_one(search, people[0], bool(found))
        interests = set(self._graph.interests_of(people[0]).names)
        return self._words.choice(people[0], offered, [name for name in offered if name in interests])

    @answer.register
    def _ranking(self, query: Ranking) -> Answer:
        ranks, cypher = self._graph.ranks(query.find)
        if query.majority:
            number = len(self._graph.people.all)
            names = [name for name, count in ranks if count * 2 > number]
            top = self._words.ranked(query.find, True, 1, _first(ranks, 1, most=True))
            return Answer(f"{self._words.majority(names, number)} {top}", cypher=(cypher,))
        first = _first(ranks, query.places, most=query.most)
        return Answer(self._words.ranked(query.find, query.most, query.places, first), cypher=(cypher,))

    @answer.register
    def _comparison(self, query: Comparison) -> Answer:
        names = _distinct(query.matches)
        ranks, cypher = self._graph.ranks(query.find)
        counts = dict(ranks)
        own = [(name, counts[name]) for name in names]
        winners = [name for name, _ in _first(own, 1, most=query.most)]
        numbers = self._words.numbers(query.find, own)
        if len(names) < 2 or 1 < len(winners) < len(names):
            # One name, or several first places among more: the numbers say it best.
            compared = numbers
        else:
            compared = f"{self._words.compared(query.find, query.most, winners)} {numbers}"
        if len(names) > 1 and (query.first_of_two or query.equal):
            is_true = winners == (names if query.equal else names[:1])
            compared = f"{self._words.yes if is_true else self._words.no}: {compared}"
        return Answer(compared, cypher=(cypher,))

    @answer.register
    def _alike(self, query: Alike) -> Answer:
        person = query.person.name or ""
        ranks, cypher = self._graph.sharing_with(person)
        shown = _first(ranks, 1, most=True) if query.closest else ranks
        return Answer(self._words.alike(person, shown, query.closest), cypher=(cypher,))

    @answer.register
    def _profile(self, query: Profile) -> Answer:
        kind = Kind.INTERESTS if query.subject is Subject.PEOPLE else Kind.FANS
        answer = self._question(Question(kind, [query.match]))
        return replace(answer, text=f"{answer.text} {self._words.all_known.format(query.match.name)}")


_COMPARISONS = {"=": operator.eq, ">": operator.gt, ">=": operator.ge, "<": operator.lt, "<=": operator.le}


def _is_true(check: Check, found: int, everybody: int) -> bool:
    if check.number is not None:
        assert isinstance(check.number.amount, int)
        return bool(_COMPARISONS[check.number.comparison](found, check.number.amount))
    return {
        Quantity.EVERY: found == everybody,
        Quantity.MOST: 2 * found > everybody,
        Quantity.SOME: found > 0,
        Quantity.NONE: found == 0,
    }[check.quantity]


def _first(ranks: Sequence[tuple[str, int]], places: int, *, most: bool) -> list[tuple[str, int]]:
    """Return the first places, with all that share the last of them."""
    ordered = sorted(ranks, key=lambda rank: -rank[1] if most else rank[1])
    if len(ordered) <= places:
        return ordered
    last = ordered[places - 1][1]
    return [rank for rank in ordered if (rank[1] >= last if most else rank[1] <= last)]
