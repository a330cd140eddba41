"""The pipelines as the service runs them: with a real context, on an event loop."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from examples.interests import answer_interests, app, greet
from examples.interests.graph import open_graph
from examples.interests.tables import SHIPPED, Tables
from jimsapi import JimsApp, StatusEvent, ThreadContext

pytestmark = pytest.mark.anyio
Folder = Callable[..., Path]


async def converse(*messages: str) -> list[tuple[str, dict[str, Any]]]:
    """The events that the last message brought, after the others were answered."""
    history: list[tuple[str, dict[str, Any]]] = []
    sent: list[tuple[str, dict[str, Any]]] = []
    for message in messages:
        ctx = ThreadContext.for_test(message, history=history)
        await answer_interests(ctx)
        sent = [(event.event_type, event.event_data) for event in ctx.outgoing_events]
        history += [("comm.user_message", {"role": "user", "content": message}), *sent]
    return sent


async def ask(*messages: str) -> str:
    (_, said), _ = await converse(*messages)
    return str(said["content"])


async def test_the_app_is_made_of_the_two_pipelines() -> None:
    assert app == JimsApp(answer_interests, conversation_start_pipeline=greet, name="interests")


async def test_the_owners_question_gets_the_owners_events() -> None:
    question = "What are Geneva Durben's interests?"
    answer = "Geneva Durben is interested in Quokkas, Slide Rules, Mosaic, Eating Disorders, Tantric, Marrakesh."
    assert await converse(question) == [
        ("comm.assistant_message", {"role": "assistant", "content": answer}),
        (
            "rag.query_processed",
            {
                "query": question,
                "answer": answer,
                "technical_info": {
                    "vts_queries": [],
                    "cypher_queries": [
                        (
                            "MATCH (p:person)-[:PERSON_has_INTEREST]->(i:interest) "
                            "WHERE p.person_name = 'Geneva Durben' RETURN i.interest_name"
                        )
                    ],
                    "num_vts_queries": 0,
                    "num_cypher_queries": 1,
                    "model_used": "none",
                    "model_stats": {},
                },
                "threshold": 0.8,
            },
        ),
    ]


@pytest.mark.parametrize(
    ("message", "answer"),
    [
        (
            "Who likes Quokkas?",
            "Geneva Durben, Iñaki Etxarte, Siobhán O'Dwyer, Zoë Vandermeer are interested in Quokkas.",
        ),
        ("Who likes Zoetropes?", "Zoë Vandermeer is interested in Zoetropes."),
        ("Who likes Competitive Napping?", "Nobody is interested in Competitive Napping."),
        ("Who likes Quokkas and Mosaic?", "Geneva Durben, Zoë Vandermeer are interested in both Quokkas and Mosaic."),
        (
            "Who likes Quokkas, Mosaic and Zoetropes?",
            "Zoë Vandermeer is interested in all of Quokkas, Mosaic and Zoetropes.",
        ),
        ("Who likes Who Goes There?", "Ren Hayakawa is interested in Who Goes There?"),
        ("What does Odile Marchetti like?", "Odile Marchetti has no interests on record."),
        (
            "What are Wilhelmina Thorne's and Odile Marchetti's interests?",
            (
                "Wilhelmina Thorne is interested in Hedge Mazes, Moss Gardens, Shadow Puppets. "
                "Odile Marchetti has no interests on record."
            ),
        ),
        (
            "What do Geneva Durben and Zoë Vandermeer have in common?",
            "Geneva Durben and Zoë Vandermeer have Quokkas, Mosaic in common.",
        ),
        (
            "What do Geneva Durben, Tobias Hawkes and Alexander Brandt have in common?",
            "Geneva Durben, Tobias Hawkes and Alexander Brandt have Slide Rules in common.",
        ),
        (
            "What do Geneva Durben and Odile Marchetti have in common?",
            "Geneva Durben and Odile Marchetti have no interests in common.",
        ),
        (
            "What does Geneva Durben have in common with Geneva Durben?",
            "That is one person, Geneva Durben; name at least two to compare.",
        ),
        (
            "What are Genva Durben's interests?",
            (
                "No “Genva Durben”; the nearest is Geneva Durben. "
                "Geneva Durben is interested in Quokkas, Slide Rules, Mosaic, Eating Disorders, Tantric, Marrakesh."
            ),
        ),
        ("Who likes Zoetrops?", "No “Zoetrops”; the nearest is Zoetropes. Zoë Vandermeer is interested in Zoetropes."),
        (
            'Who likes "Zoetrops"?',
            "No “Zoetrops”; the nearest is Zoetropes. Zoë Vandermeer is interested in Zoetropes.",
        ),
        (
            "What does Harry Potter like?",
            "“Harry Potter” was not found: there is nobody of that name, nor one spelt like it.",
        ),
        (
            "Who likes Unicorns?",
            "“Unicorns” was not found: there is no interest of that name, nor one spelt like it.",
        ),
        (
            "Who likes Brass Moss?",
            "“Brass Moss” was not found: there is no interest of that name, nor one spelt like it.",
        ),
    ],
)
async def test_each_kind_of_answer_is_plain_and_complete(message: str, answer: str) -> None:
    assert await ask(message) == answer


async def test_a_name_that_fits_several_asks_which_is_meant(monkeypatch: pytest.MonkeyPatch, folder: Folder) -> None:
    people = "person_id,person_name\n" + "".join(f"p{n},Ann {surname}\n" for n, surname in enumerate("ABCDEFG"))
    monkeypatch.setenv("INTERESTS_DATA", str(folder(person=people, person_has_interest="person_id,interest_id\n")))
    assert await ask("What does Ann like?") == (
        "No “Ann”; did you mean Ann A or Ann B or Ann C or Ann D or Ann E or one of 2 others?"
    )


@pytest.mark.parametrize("message", ["", "Life, the universe and everything", "What is the meaning of life?"])
async def test_what_is_not_understood_is_answered_with_examples_and_no_query(message: str) -> None:
    (_, said), (_, processed) = await converse(message)
    assert said["content"].startswith("I did not understand that. Ask me about people and their interests")
    assert "“Who likes Quokkas?”" in said["content"]
    assert processed["query"] == message
    assert processed["technical_info"]["num_cypher_queries"] == 0


async def test_a_follow_up_is_read_against_the_conversation() -> None:
    first = "What are Geneva Durben's interests?"
    tobias = (
        "Tobias Hawkes is interested in Salt and Vinegar Crisps, Ship's Biscuits, Lighthouse Logbooks, Slide Rules."
    )
    assert await ask(first, "And Tobias Hawkes’?") == tobias
    assert await ask(first, "And Tobias Hawkes’?", "and zoetropes?") == "Zoë Vandermeer is interested in Zoetropes."


async def test_each_cypher_query_of_an_answer_is_listed() -> None:
    _, (_, processed) = await converse("What are Geneva Durben's and Ren Hayakawa's interests?")
    queries = processed["technical_info"]["cypher_queries"]
    assert processed["technical_info"]["num_cypher_queries"] == len(queries) == 2
    assert "'Geneva Durben'" in queries[0]
    assert "'Ren Hayakawa'" in queries[1]


async def test_messages_that_are_no_text_are_not_understood() -> None:
    ctx = ThreadContext.for_test(history=[("comm.user_action", {"role": "user", "content": {"button": 1}})])
    await answer_interests(ctx)
    assert ctx.outgoing_events[0].event_data["content"].startswith("I did not understand")


async def test_every_example_in_the_greeting_is_answered() -> None:
    ctx = ThreadContext.for_test()
    await greet(ctx)
    examples = [part.split("”")[0] for part in ctx.outgoing_events[0].event_data["content"].split("“")[1:]]
    assert len(examples) == 3
    for example in examples:
        _, (_, processed) = await converse(example)
        assert processed["technical_info"]["num_cypher_queries"] == 1


async def test_whoever_watches_is_told_that_the_graph_is_asked() -> None:
    class Watcher:
        def __init__(self) -> None:
            self.told: list[StatusEvent | str] = []

        async def update_status(self, status: StatusEvent | str) -> None:
            self.told.append(status)

    watcher = Watcher()
    await answer_interests(ThreadContext.for_test("Who likes Quokkas?").with_status_updater(watcher))
    assert watcher.told == [StatusEvent("Asking the graph", "searching")]


async def test_the_environment_may_name_other_data(monkeypatch: pytest.MonkeyPatch, folder: Folder) -> None:
    monkeypatch.setenv("INTERESTS_DATA", str(folder()))
    assert await ask("Who likes Chess?") == "Ann Lee, Bo Dahl are interested in Chess."


async def test_empty_data_is_said_to_be_empty(monkeypatch: pytest.MonkeyPatch, folder: Folder) -> None:
    empty = folder(person="person_id,person_name\n", person_has_interest="person_id,interest_id\n")
    monkeypatch.setenv("INTERESTS_DATA", str(empty))
    assert await ask("hello") == "Hello! There is nobody to ask about yet: the data is empty."
    assert await ask("What?") == "I did not understand that. There is nobody to ask about yet: the data is empty."


async def test_many_runs_at_once_get_each_its_own_answer(tables: Tables) -> None:
    people = list(tables.people.values()) * 10
    answers = await asyncio.gather(*(ask(f"What does {person} like?") for person in people))
    assert all(answer.startswith(f"{person} ") for person, answer in zip(people, answers, strict=True))


async def test_the_event_loop_goes_on_while_the_database_is_busy() -> None:
    graph = open_graph(SHIPPED)
    with graph._lock:
        asking = asyncio.create_task(ask("Who likes Zoetropes?"))
        # Were the query made in the loop's own thread, this would wait for itself for ever.
        for _ in range(5):
            await asyncio.sleep(0)
        assert not asking.done()
    assert await asking == "Zoë Vandermeer is interested in Zoetropes."
