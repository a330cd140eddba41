"""Reading questions: which kind, about whom or what, and what a follow-up refers to."""

import pytest

from examples.interests.graph import Graph
from examples.interests.query import Kind, Question
from examples.interests.question import read_message

GENEVA, TOBIAS, ZOE, SIOBHAN, BRAM = (
    "Geneva Durben",
    "Tobias Hawkes",
    "Zoë Vandermeer",
    "Siobhán O'Dwyer",
    "Bram and Birgit Okonjo",
)


def read(graph: Graph, *messages: str) -> tuple[Kind, list[str | None]] | None:
    query = read_message(messages, graph.people, graph.interests).query
    assert query is None or isinstance(query, Question)
    return (query.kind, [match.name for match in query.matches]) if query else None


@pytest.mark.parametrize(
    "message",
    [
        "What are Geneva Durben's interests?",
        "what are geneva durben’s interests",
        "WHAT ARE GENEVA DURBEN'S INTERESTS???",
        "  What   are\nGeneva Durben's interests ? ",
        "What's Geneva Durben interested in?",
        "What is Geneva Durben interested in?",
        "What is Geneva Durben into?",
        "What does Geneva Durben like?",
        "What does Geneva Durben love!",
        "What interests does Geneva Durben have?",
        "Which interests does Geneva Durben have?",
        "What interests Geneva Durben?",
        "What are the interests of Geneva Durben?",
        "List all of Geneva Durben's interests.",
        "Show me Geneva Durben's hobbies",
        "Geneva Durben's interests",
        "Hi, can you tell me what Geneva Durben likes?",
        "Please tell me: what does Geneva Durben like?",
        "What does “Geneva Durben” like, please?",
        "And what does Geneva Durben like?",
        "Geneva Durben",
        "¿What does Geneva Durben like?",
    ],
)
def test_a_persons_interests_are_asked_for_in_many_ways(graph: Graph, message: str) -> None:
    assert read(graph, message) == (Kind.INTERESTS, [GENEVA])


@pytest.mark.parametrize(
    ("message", "names"),
    [
        ("What are Tobias Hawkes' interests?", [TOBIAS]),
        ("What are Tobias Hawkes’ interests?", [TOBIAS]),
        ("What are Tobias Hawkes's interests?", [TOBIAS]),
        ("What does Siobhan O'Dwyer like?", [SIOBHAN]),
        ("What are Siobhán O’Dwyer’s interests?", [SIOBHAN]),
        ("What do Bram and Birgit Okonjo like?", [BRAM]),
        ("What are Bram and Birgit Okonjo's interests?", [BRAM]),
        ("What are Geneva Durben and Tobias Hawkes interested in?", [GENEVA, TOBIAS]),
        ("What are Geneva Durben's and Tobias Hawkes' interests?", [GENEVA, TOBIAS]),
        ("What does Harry Potter like?", [None]),
    ],
)
def test_names_are_read_with_their_apostrophes_accents_and_ands(
    graph: Graph, message: str, names: list[str | None]
) -> None:
    assert read(graph, message) == (Kind.INTERESTS, names)


@pytest.mark.parametrize(
    ("message", "names"),
    [
        ("Who likes Quokkas?", ["Quokkas"]),
        ("who likes quokkas", ["Quokkas"]),
        ("Who else likes Quokkas?", ["Quokkas"]),
        ("Who is interested in Quokkas?", ["Quokkas"]),
        ("Who's interested in Quokkas?", ["Quokkas"]),
        ("Who’s into Quokkas?", ["Quokkas"]),
        ("Who is a fan of Quokkas?", ["Quokkas"]),
        ("Who has an interest in Quokkas?", ["Quokkas"]),
        ("Which people like Quokkas?", ["Quokkas"]),
        ("List everyone who likes Quokkas", ["Quokkas"]),
        ("Tell me who likes Quokkas", ["Quokkas"]),
        ("Show me who likes Quokkas", ["Quokkas"]),
        ("Whose interests include Quokkas?", ["Quokkas"]),
        ("Who likes Salt and Vinegar Crisps?", ["Salt and Vinegar Crisps"]),
        ("Who likes Rivers, Canals and Locks?", ["Rivers, Canals and Locks"]),
        ("Who likes Rock and Roll Bingo?", ["Rock & Roll Bingo"]),
        ("Who likes cat’s cradle?", ["Cat's Cradle"]),
        ("Who likes Creme Brulee Torches?", ["Crème Brûlée Torches"]),
        ("Who likes Who Goes There??", ["Who Goes There?"]),
        ("Who likes both Quokkas and Mosaic?", ["Quokkas", "Mosaic"]),
        ("Who likes Salt and Vinegar Crisps and Pub Quizzes?", ["Salt and Vinegar Crisps", "Pub Quizzes"]),
        ("Quokkas?", ["Quokkas"]),
        ("Who likes Unicorns?", [None]),
    ],
)
def test_the_people_of_an_interest_are_asked_for_in_many_ways(
    graph: Graph, message: str, names: list[str | None]
) -> None:
    assert read(graph, message) == (Kind.FANS, names)


@pytest.mark.parametrize(
    ("message", "names"),
    [
        ("What do Geneva Durben and Tobias Hawkes have in common?", [GENEVA, TOBIAS]),
        ("What interests do Geneva Durben and Tobias Hawkes share?", [GENEVA, TOBIAS]),
        ("What do Geneva Durben and Tobias Hawkes both like?", [GENEVA, TOBIAS]),
        ("What does Geneva Durben have in common with Tobias Hawkes?", [GENEVA, TOBIAS]),
        ("Do Geneva Durben and Tobias Hawkes have anything in common?", [GENEVA, TOBIAS]),
        ("What are the common interests of Geneva Durben and Tobias Hawkes?", [GENEVA, TOBIAS]),
        ("What do Geneva Durben, Tobias Hawkes and Zoe Vandermeer have in common?", [GENEVA, TOBIAS, ZOE]),
        ("What do Geneva Durben, Tobias Hawkes, and Zoë Vandermeer all like?", [GENEVA, TOBIAS, ZOE]),
        ("What do Bram and Birgit Okonjo and Tobias Hawkes have in common?", [BRAM, TOBIAS]),
        ("What do Tobias Hawkes and Bram and Birgit Okonjo have in common?", [TOBIAS, BRAM]),
    ],
)
def test_common_interests_are_asked_for_in_many_ways(graph: Graph, message: str, names: list[str | None]) -> None:
    assert read(graph, message) == (Kind.COMMON, names)


OF_GENEVA = "What are Geneva Durben's interests?"
WHO_LIKES = "Who likes Quokkas?"
COMMON = "What do Geneva Durben and Tobias Hawkes have in common?"


@pytest.mark.parametrize(
    ("messages", "kind", "names"),
    [
        ([OF_GENEVA, "and Tobias Hawkes'?"], Kind.INTERESTS, [TOBIAS]),
        ([OF_GENEVA, "And Zoë Vandermeer’s?"], Kind.INTERESTS, [ZOE]),
        ([OF_GENEVA, "What about Zoe Vandermeer?"], Kind.INTERESTS, [ZOE]),
        ([OF_GENEVA, "how about zoe vandermeer"], Kind.INTERESTS, [ZOE]),
        ([OF_GENEVA, "and what are Zoë Vandermeer's?"], Kind.INTERESTS, [ZOE]),
        ([OF_GENEVA, "and Quokkas?"], Kind.FANS, ["Quokkas"]),
        ([OF_GENEVA, "and Zoë Vandermeeer?"], Kind.INTERESTS, [ZOE]),
        ([OF_GENEVA, "and Nobody At All?"], Kind.INTERESTS, [None]),
        ([WHO_LIKES, "and Mosaic?"], Kind.FANS, ["Mosaic"]),
        ([WHO_LIKES, "What about mosiac?"], Kind.FANS, ["Mosaic"]),
        ([WHO_LIKES, "Mosaic?"], Kind.FANS, ["Mosaic"]),
        ([WHO_LIKES, "and Salt and Vinegar Crisps?"], Kind.FANS, ["Salt and Vinegar Crisps"]),
        ([WHO_LIKES, "and Geneva Durben's?"], Kind.INTERESTS, [GENEVA]),
        ([WHO_LIKES, "What about Geneva Durben?"], Kind.INTERESTS, [GENEVA]),
        ([WHO_LIKES, "and Unicorns?"], Kind.FANS, [None]),
        ([COMMON, "and Zoë Vandermeer?"], Kind.COMMON, [GENEVA, TOBIAS, ZOE]),
        ([COMMON, "What about Zoë Vandermeer and Bram and Birgit Okonjo?"], Kind.COMMON, [ZOE, BRAM]),
        ([COMMON, "and Zoë Vandermeer's?"], Kind.INTERESTS, [ZOE]),
        ([COMMON, "and Zoë Vandermeer?", "and Siobhán O'Dwyer?"], Kind.COMMON, [GENEVA, TOBIAS, ZOE, SIOBHAN]),
        ([OF_GENEVA, "and Quokkas?", "and Mosaic?", "and Mosaiic?"], Kind.FANS, ["Mosaic"]),
        ([COMMON, "thank you!", "and Zoë Vandermeer?"], Kind.COMMON, [GENEVA, TOBIAS, ZOE]),
        (["What about Mosaic?"], Kind.FANS, ["Mosaic"]),
        (["and Zoë Vandermeer's?"], Kind.INTERESTS, [ZOE]),
    ],
)
def test_a_follow_up_is_read_against_what_went_before(
    graph: Graph, messages: list[str], kind: Kind, names: list[str | None]
) -> None:
    assert read(graph, *messages) == (kind, names)


@pytest.mark.parametrize(
    "message",
    [
        "",
        "   ",
        "?!",
        "hello",
        "How is the weather?",
        "Who are you?",
        "interests",
        "What are the interests?",
        "What are your interests?",
        "'s",
        "and",
    ],
)
def test_other_messages_are_not_understood(graph: Graph, message: str) -> None:
    assert read(graph, message) is None
    assert read(graph, OF_GENEVA, message) is None
