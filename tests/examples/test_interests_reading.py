"""Queries that a model has read in a question: what is accepted of them, and how the graph answers them."""

import json
from typing import Any

import pytest

from examples.interests.answer import answer_message
from examples.interests.grammar import Language
from examples.interests.graph import Graph
from examples.interests.question import Message
from examples.interests.reading import ReadingError, parse_query

QUESTION = "Which folks are keen about Quokkas yet never about Mosaic?"


def answer(graph: Graph, fields: Any, question: str = QUESTION) -> str:
    text = fields if isinstance(fields, str) else json.dumps(fields)
    query = parse_query(text, question, graph.people, graph.interests)
    return answer_message(Message(Language.ENGLISH, query, loosely=True), graph).full()


@pytest.mark.parametrize(
    ("question", "fields", "expected"),
    [
        (
            QUESTION,
            {"ask": "list", "find": "people", "all": ["Quokkas"], "none": ["Mosaic"]},
            (
                "I read that as: people interested in Quokkas, but not in Mosaic. "
                "People interested in Quokkas, but not in Mosaic: Iñaki Etxarte, Siobhán O'Dwyer."
            ),
        ),
        (
            "The tally of Quokkas or Yodelling devotees, Zoë aside?",
            {"ask": "count", "find": "people", "any": ["Quokkas", "Yodelling"], "except": ["Zoë"]},
            (
                "I read “Zoë” as Zoë Vandermeer. "
                "I read that as: people interested in at least one of Quokkas and Yodelling, other than "
                "Zoë Vandermeer. "
                "People interested in at least one of Quokkas and Yodelling, other than Zoë Vandermeer: 3 "
                "(Geneva Durben, Iñaki Etxarte, Siobhán O'Dwyer)."
            ),
        ),
        (
            "Would quokas be up Ren's street?",
            {"ask": "check", "people": ["Ren"], "all": ["quokas"]},
            (
                "I read “Ren” as Ren Hayakawa. No “quokas”; the nearest is Quokkas. "
                "I read that as: people interested in Quokkas. "
                "No: Ren Hayakawa is not on record as interested in Quokkas."
            ),
        ),
        (
            "Anybody out there with a thing for Yodelling?",
            {"ask": "check", "quantity": "some", "all": ["Yodelling"]},
            (
                "I read that as: people interested in Yodelling. "
                "Yes: 2 of 12 people are interested in Yodelling: Iñaki Etxarte, Siobhán O'Dwyer."
            ),
        ),
        (
            "What is all the rage?",
            {"ask": "most", "find": "interests"},
            "Most popular, by the number of people interested: Quokkas (4).",
        ),
        (
            "What tickles Geneva Durben's fancy?",
            '```json\n{"ask": "list", "find": "interests", "all": ["Geneva Durben"]}\n```',
            (
                "I read that as: interests of Geneva Durben. "
                "Interests of Geneva Durben: Quokkas, Slide Rules, Mosaic, Eating Disorders, Tantric, Marrakesh."
            ),
        ),
    ],
)
def test_the_graph_answers_the_query_of_a_model_and_says_what_was_read(
    graph: Graph, question: str, fields: Any, expected: str
) -> None:
    assert answer(graph, fields, question) == expected


def test_a_question_that_the_model_cannot_translate_is_not_understood(graph: Graph) -> None:
    assert answer(graph, {"ask": "unknown"}).startswith("I did not understand that.")


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ("Quokkas!", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ([], "is not an object"),
        ({"ask": "list", "find": "people", "like": ["Quokkas"]}, "has an unknown field"),
        ({"ask": "delete", "find": "people"}, "has no kind of question"),
        ({}, "has an invalid 'find'"),
        ({"ask": "list", "find": ["people"]}, "has an invalid 'find'"),
        ({"ask": "check", "quantity": "most", "all": ["Quokkas"]}, "has an invalid 'quantity'"),
        ({"ask": "list", "find": "people", "all": "Quokkas"}, "has no list of names in 'all'"),
        ({"ask": "list", "find": "people", "all": [1]}, "has no list of names in 'all'"),
        ({"ask": "list", "find": "people", "all": [""]}, "has no list of names in 'all'"),
        ({"ask": "list", "find": "people", "all": ["Zoetropes"]}, "has a name that the question does not have"),
        ({"ask": "list", "find": "people", "all": ["Quokkas"]}, "lacks a name that the question has"),
        ({"ask": "list", "find": "people", "people": ["Quokkas"]}, "has people without a check"),
        ({"ask": "list", "find": "people"}, "lacks a name that the question has"),
        ({"ask": "most", "find": "people", "all": ["Quokkas", "Mosaic"]}, "has no kind of question"),
    ],
)
def test_a_query_that_is_not_one_of_the_question_is_an_error(graph: Graph, fields: Any, error: str) -> None:
    with pytest.raises(ReadingError, match=error):
        answer(graph, fields)
