"""Answering a question from the graph, in plain words."""

from collections.abc import Sequence
from dataclasses import dataclass

from .graph import Graph
from .names import Match
from .question import Kind, Question

MAX_CANDIDATES = 5


@dataclass(frozen=True)
class Answer:
    """The text of an answer, and its sources.

    `remarks` report names that were corrected, and come before `text`. `names` are all rows that `text` contains, and
    `all_names` are all names of their kind in the data. `cypher` are the queries that found the rows.
    """

    text: str
    remarks: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    all_names: Sequence[str] = ()
    cypher: tuple[str, ...] = ()

    def full(self, text: str | None = None) -> str:
        """Return the remarks and `text`. The default of `text` is the answer's own."""
        return " ".join([*self.remarks, text or self.text])


def answer_question(question: Question | None, graph: Graph) -> Answer:
    """Answer a question from the graph. If it was not understood (None), the answer has examples."""
    if question is None:
        return Answer(f"I did not understand that. {examples(graph)}")
    unknown = [_not_found(match, question.kind) for match in question.matches if match.name is None]
    if unknown:
        return Answer(" ".join(unknown))
    remarks = tuple(f"No “{near.written}”; the nearest is {near.name}." for near in question.matches if not near.exact)
    # A dict removes duplicates and keeps the order.
    names = list(dict.fromkeys(match.name for match in question.matches if match.name))
    if question.kind is Kind.FANS:
        return _fans(names, graph, remarks)
    if question.kind is Kind.COMMON:
        return _in_common(names, graph, remarks)
    return _interests(names, graph, remarks)


def examples(graph: Graph) -> str:
    """Return examples of questions, with names from the data."""
    people, interests = graph.people.all, graph.interests.all
    if not people or not interests:
        return "There is nobody to ask about yet: the data is empty."
    questions = [f"“What are {people[0]}'s interests?”", f"“Who likes {interests[0]}?”"]
    if len(people) > 1:
        questions.append(f"“What do {people[0]} and {people[1]} have in common?”")
    return f"Ask me about people and their interests, for example: {', '.join(questions)}"


def _interests(people: Sequence[str], graph: Graph, remarks: tuple[str, ...]) -> Answer:
    found = [graph.interests_of(person) for person in people]
    sentences = [
        _with_full_stop(f"{person} is interested in {', '.join(rows.names)}")
        if rows.names
        else f"{person} has no interests on record."
        for person, rows in zip(people, found, strict=True)
    ]
    names = tuple(name for rows in found for name in rows.names)
    return Answer(" ".join(sentences), remarks, names, graph.interests.all, tuple(rows.cypher for rows in found))


def _fans(interests: Sequence[str], graph: Graph, remarks: tuple[str, ...]) -> Answer:
    found = graph.fans_of(interests)
    people = ", ".join(found.names) or "Nobody"
    verb = "are" if len(found.names) > 1 else "is"
    text = _with_full_stop(f"{people} {verb} interested in {_all_of(interests)}")
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
        first, more = match.candidates[:MAX_CANDIDATES], len(match.candidates) - MAX_CANDIDATES
        others = [f"one of {more} others"] if more > 0 else []
        return f"No “{match.written}”; did you mean {' or '.join([*first, *others])}?"
    if kind is Kind.FANS:
        return f"“{match.written}” was not found: there is no interest of that name, nor one spelt like it."
    return f"“{match.written}” was not found: there is nobody of that name, nor one spelt like it."


def _with_full_stop(sentence: str) -> str:
    """Return the sentence with a full stop, unless its last name ends with a punctuation mark."""
    return sentence if sentence.endswith((".", "!", "?")) else f"{sentence}."


def _and(names: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def _all_of(names: Sequence[str]) -> str:
    """Return "A", "both A and B" or "all of A, B and C", which nobody can read as "A or B"."""
    return ("", "both ", "all of ")[min(len(names), 3) - 1] + _and(names)
