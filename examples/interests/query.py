"""Structured queries: what a question asks the graph, whether the grammar or a model has read it."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto

from .names import Match


class Subject(Enum):
    """What a query finds, or what a name is the name of."""

    PEOPLE = auto()
    INTERESTS = auto()

    @property
    def other(self) -> "Subject":
        """The other end of a link: the interests of people, the people of interests."""
        return Subject.INTERESTS if self is Subject.PEOPLE else Subject.PEOPLE


class Kind(Enum):
    """The kind of a question that has only names."""

    INTERESTS = auto()  # the interests of people
    FANS = auto()  # the people who share interests
    COMMON = auto()  # the interests that people share


Mentions = list[tuple[Subject, Match]]


def _mentions(subject: Subject, matches: Sequence[Match]) -> Mentions:
    return [(subject, match) for match in matches]


@dataclass(frozen=True)
class Question:
    """The kind of a question, and the names in it: people for `INTERESTS` and `COMMON`, interests for `FANS`."""

    kind: Kind
    matches: list[Match]

    def mentions(self) -> Mentions:
        """Return all names in the query, with what each is the name of."""
        return _mentions(Subject.INTERESTS if self.kind is Kind.FANS else Subject.PEOPLE, self.matches)


EVERY = "all"
"""The amount of a `Number` that is the number of all people or interests, whichever is counted."""


@dataclass(frozen=True)
class Number:
    """How many links something has: `comparison` is one of `=`, `>`, `>=`, `<`, `<=`."""

    comparison: str
    amount: int | str


@dataclass(frozen=True)
class Search:
    """The people or interests for which all of this is true. Empty fields do not count.

    Each is linked with all of `all`, at least one of `any`, exactly one of `one` and none of `none`, has this `number`
    of links, and is itself not one of `excluded`.
    """

    find: Subject
    all: tuple[Match, ...] = ()
    any: tuple[Match, ...] = ()
    one: tuple[Match, ...] = ()
    none: tuple[Match, ...] = ()
    excluded: tuple[Match, ...] = ()
    number: Number | None = None

    def mentions(self) -> Mentions:
        """Return all names in the query, with what each is the name of."""
        linked = [*self.all, *self.any, *self.one, *self.none]
        return _mentions(self.find.other, linked) + _mentions(self.find, self.excluded)


@dataclass(frozen=True)
class Count:
    """How many people or interests a search finds, or how many interests each of `people` has."""

    search: Search | None = None
    people: tuple[Match, ...] = ()

    def mentions(self) -> Mentions:
        """Return all names in the query, with what each is the name of."""
        return _mentions(Subject.PEOPLE, self.people) + (self.search.mentions() if self.search else [])


class Quantity(Enum):
    """Of how many people a check must be true."""

    EVERY = auto()
    MOST = auto()
    SOME = auto()
    NONE = auto()


@dataclass(frozen=True)
class Check:
    """Whether a search finds every one, most, some or none of `people` (of everybody if it is empty).

    With a `number`, it is whether the search finds that many.

    `negated`: the question had a "not", so that "yes" could mean both, or it was not one of yes or no. The answer is
    then a statement.
    """

    search: Search
    quantity: Quantity = Quantity.EVERY
    people: tuple[Match, ...] = ()
    negated: bool = False
    number: Number | None = None

    def mentions(self) -> Mentions:
        """Return all names in the query, with what each is the name of."""
        return _mentions(Subject.PEOPLE, self.people) + self.search.mentions()


@dataclass(frozen=True)
class Ranking:
    """The people or interests with the most or the fewest links: the first `places`.

    `majority`: the question was what most people like, so the answer says whether it is more than half of them.
    """

    find: Subject
    most: bool = True
    places: int = 1
    majority: bool = False

    def mentions(self) -> Mentions:
        """Return no names: a ranking has none."""
        return []


@dataclass(frozen=True)
class Comparison:
    """Which of the named people or interests has the most or the fewest links.

    `first_of_two`: the question was whether the first of the two has more (or fewer) than the second. `equal`: it was
    whether all have the same number.
    """

    find: Subject
    matches: tuple[Match, ...]
    most: bool = True
    first_of_two: bool = False
    equal: bool = False

    def mentions(self) -> Mentions:
        """Return all names in the query, with what each is the name of."""
        return _mentions(self.find, self.matches)


@dataclass(frozen=True)
class Alike:
    """The people who share interests with a person; with `closest`, only those who share the most."""

    person: Match
    closest: bool = False

    def mentions(self) -> Mentions:
        """Return all names in the query, with what each is the name of."""
        return [(Subject.PEOPLE, self.person)]


@dataclass(frozen=True)
class Profile:
    """What the graph has about a person or an interest."""

    subject: Subject
    match: Match

    def mentions(self) -> Mentions:
        """Return all names in the query, with what each is the name of."""
        return [(self.subject, self.match)]


Query = Question | Search | Count | Check | Ranking | Comparison | Alike | Profile
