"""Answering a question from the graph, in plain words."""

from collections.abc import Sequence
from dataclasses import dataclass

from .graph import Graph
from .names import Match
from .question import Kind, Question

MOST_CANDIDATES = 5


@dataclass(frozen=True)
class Answer:
    """What to say, and where it comes from.

    `remarks` are about names that were not as written, and come before `text`. `names` are the rows that `text` gives,
    all of them, `kin` all names of their kind in the data; `cypher` the queries that found the rows.
    """

    text: str
    remarks: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    kin: Sequence[str] = ()
    cypher: tuple[str, ...] = ()

    def full(self, text: str | None = None) -> str:
        """The remarks, then `text`; by default its own."""
        return " ".join([*self.remarks, text or self.text])


def answer_question(question: Question | None, graph: Graph) -> Answer:
    """Look the question up. One that was not understood (None) is answered with examples."""
    if question is None:
        return Answer(f"I did not understand that. {examples(graph)}")
    unknown = [_not_found(match, question.kind) for match in question.matches if match.name is None]
    if unknown:
        return Answer(" ".join(unknown))
    remarks = tuple(f"No “{near.asked}”; the nearest is {near.name}." for near in question.matches if not near.exact)
    # The keys of a dict: somebody who is named twice is still one person.
    names = list(dict.fromkeys(match.name for match in question.matches if match.name))
    if question.kind is Kind.FANS:
        return _fans(names, graph, remarks)
    if question.kind is Kind.COMMON:
        return _in_common(names, graph, remarks)
    return _interests(names, graph, remarks)


def examples(graph: Graph) -> str:
    """What can be asked, with names from the data."""
    people, interests = graph.people.all, graph.interests.all
    if not people or not interests:
        return "There is nobody to ask about yet: the data is empty."
    asked = [f"“What are {people[0]}'s interests?”", f"“Who likes {interests[0]}?”"]
    if len(people) > 1:
        asked.append(f"“What do {people[0]} and {people[1]} have in common?”")
    return f"Ask me about people and their interests, for example: {', '.join(asked)}"


def _interests(people: Sequence[str], graph: Graph, remarks: tuple[str, ...]) -> Answer:
    found = [graph.interests_of(person) for person in people]
    sentences = [
        _ended(f"{person} is interested in {', '.join(rows.names)}")
        if rows.names
        else f"{person} has no interests on record."
        for person, rows in zip(people, found, strict=True)
    ]
    names = tuple(name for rows in found for name in rows.names)
    return Answer(" ".join(sentences), remarks, names, graph.interests.all, tuple(rows.cypher for rows in found))


def _fans(interests: Sequence[str], graph: Graph, remarks: tuple[str, ...]) -> Answer:
    found = graph.fans_of(interests)
    who = ", ".join(found.names) or "Nobody"
    verb = "are" if len(found.names) > 1 else "is"
    text = _ended(f"{who} {verb} interested in {_all_of(interests)}")
    return Answer(text, remarks, tuple(found.names), graph.people.all, (found.cypher,))


def _in_common(people: Sequence[str], graph: Graph, remarks: tuple[str, ...]) -> Answer:
    if len(people) == 1:
        return Answer(f"That is one person, {people[0]}; name at least two to compare.", remarks)
    found = graph.interests_in_common(people)
    shared = ", ".join(found.names) or "no interests"
    text = f"{_and(people)} have {shared} in common."
    return Answer(text, remarks, tuple(found.names), graph.interests.all, (found.cypher,))


def _not_found(match: Match, kind: Kind) -> str:
    if match.candidates:
        first, more = match.candidates[:MOST_CANDIDATES], len(match.candidates) - MOST_CANDIDATES
        others = [f"one of {more} others"] if more > 0 else []
        return f"No “{match.asked}”; did you mean {' or '.join([*first, *others])}?"
    if kind is Kind.FANS:
        return f"“{match.asked}” was not found: there is no interest of that name, nor one spelt like it."
    return f"“{match.asked}” was not found: there is nobody of that name, nor one spelt like it."


def _ended(sentence: str) -> str:
    """With a full stop, unless its last name brings a mark of its own."""
    return sentence if sentence.endswith((".", "!", "?")) else f"{sentence}."


def _and(names: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def _all_of(names: Sequence[str]) -> str:
    """ "A", "both A and B", "all of A, B and C": so that nobody takes it for "A or B"."""
    return ("", "both ", "all of ")[min(len(names), 3) - 1] + _and(names)
