"""What a pipeline sees of its thread and speaks through: everything that a JIMS pipeline uses, and `stream`."""

import asyncio
import dataclasses
import json
from collections.abc import Awaitable, Callable
from datetime import date
from decimal import Decimal
from typing import Any
from uuid import UUID

import msgspec
import pydantic
import pytest

from jimsapi import Event, JimsApp, StatusEvent, ThreadContext, create_api
from jimsapi.asgi.testing import TestClient
from jimsapi.runs.pipeline import pipeline_name
from jimsapi.threads.errors import RunClosed, UnstorableEvent

pytestmark = pytest.mark.anyio

HELLO = ("comm.user_message", {"role": "user", "content": "hello"})
REPLY = ("comm.assistant_message", {"role": "assistant", "content": "hi"})


def sent(ctx: ThreadContext) -> list[tuple[str, Any]]:
    return [(event.event_type, event.event_data) for event in ctx.outgoing_events]


def test_history_is_what_was_said_and_events_are_everything() -> None:
    note = ("rag.query_processed", {"query": "hello"})
    note_for_model = ("context.note", {"role": "system", "content": "kind"})
    ctx = ThreadContext.for_test("more", history=[HELLO, note, note_for_model, REPLY])
    assert ctx.history == [HELLO[1], REPLY[1], {"role": "user", "content": "more"}]
    assert [event.event_type for event in ctx.events] == [
        "comm.user_message",
        "rag.query_processed",
        "context.note",
        "comm.assistant_message",
        "comm.user_message",
    ]
    assert all(isinstance(event, Event) and event.thread_id == ctx.thread_id for event in ctx.events)
    assert len({event.event_id for event in ctx.events}) == 5
    assert all(event.created_at.tzinfo is None for event in ctx.events)
    assert (ctx.truncated, ctx.outgoing_events, ctx.status_updater) == (False, [], None)


def test_a_context_for_a_test_may_be_empty() -> None:
    ctx = ThreadContext.for_test()
    assert (ctx.history, ctx.events, ctx.thread_config) == ([], [], {})
    assert (ctx.get_last_user_message(), ctx.get_last_user_action()) == (None, (None, None))
    assert ctx.context() == []


def test_thread_config_is_what_the_thread_was_made_with() -> None:
    assert ThreadContext.for_test("hi", thread_config={"interface": "shop"}).thread_config == {"interface": "shop"}


def test_the_last_user_message_and_action_skip_the_assistant_s() -> None:
    pressed = ("comm.button_pressed", {"role": "user", "content": "yes"})
    ctx = ThreadContext.for_test(history=[HELLO, pressed, REPLY, ("rag.note", {"role": "user", "content": "no"})])
    assert ctx.get_last_user_message() == "yes"
    assert ctx.get_last_user_action() == ("button_pressed", "yes")


def test_what_is_said_is_sent_in_order_and_not_in_the_history_yet() -> None:
    ctx = ThreadContext.for_test("hi")
    ctx.send_message("one")
    ctx.send_message_with_buttons("two", [{"text": "Yes", "value": "y"}])
    ctx.send_event("rag.query_processed", {"query": "hi"})
    ctx.outgoing_events.append(Event(event_type="rag.by_hand", event_data={"n": 1}))
    assert sent(ctx) == [
        ("comm.assistant_message", {"role": "assistant", "content": "one"}),
        (
            "comm.assistant_message_with_buttons",
            {"role": "assistant", "content": "two", "buttons": [{"text": "Yes", "value": "y"}]},
        ),
        ("rag.query_processed", {"query": "hi"}),
        ("rag.by_hand", {"n": 1}),
    ]
    assert len({event.event_id for event in ctx.outgoing_events}) == 4
    assert len(ctx.history) == 1


@pytest.mark.parametrize("data", ["text", None, [1], 5])
def test_an_event_s_data_must_be_a_dict(data: Any) -> None:
    with pytest.raises(TypeError, match="must be a dict"):
        ThreadContext.for_test("hi").send_event("rag.odd", data)


def test_context_reaches_back_to_the_newest_21_said_for_20() -> None:
    history = []
    for number in range(30):
        history.append(("comm.user_message", {"role": "user", "content": number}))
        history.append(("rag.note", {"content": f"rag {number}"}))
        history.append(("context.note", {"role": "system", "content": f"note {number}"}))
    ctx = ThreadContext.for_test(history=history)
    seen = [data["content"] for data in ctx.context()]
    assert [said for said in seen if isinstance(said, int)] == list(range(9, 30))
    assert seen[0] == 9  # the note of the message before it is out of reach
    assert [note for note in seen if not isinstance(note, int)] == [f"note {number}" for number in range(9, 30)]
    assert [said for said in (data["content"] for data in ctx.context(1)) if isinstance(said, int)] == [28, 29]


class CartModel(pydantic.BaseModel):
    items: list[str]
    total: int = 0


@dataclasses.dataclass
class CartData:
    items: list[str]
    total: int = 0


class CartStruct(msgspec.Struct):
    items: list[str]
    total: int = 0


CARTS: list[Any] = [CartModel, CartData, CartStruct]


@pytest.mark.parametrize("cart", CARTS)
def test_a_state_of_any_common_kind_is_stored_as_json_and_read_back(cart: Any) -> None:
    ctx = ThreadContext.for_test("hi")
    ctx.set_state("cart", cart(items=["quokka"], total=3))
    assert sent(ctx) == [("state.set.cart", {"items": ["quokka"], "total": 3})]
    later = ThreadContext.for_test("more", history=sent(ctx))
    assert later.get_state("cart", cart) == cart(items=["quokka"], total=3)
    assert later.get_state("cart") == {"items": ["quokka"], "total": 3}


class RichModel(pydantic.BaseModel):
    tags: set[str]
    price: Decimal
    due: date
    by_number: dict[int, str]


@dataclasses.dataclass
class RichData:
    tags: set[str]
    price: Decimal
    due: date
    by_number: dict[int, str]


class RichStruct(msgspec.Struct):
    tags: set[str]
    price: Decimal
    due: date
    by_number: dict[int, str]


RICH: list[Any] = [RichModel, RichData, RichStruct]


@pytest.mark.parametrize("rich", RICH)
def test_a_state_may_hold_what_json_has_no_word_for(rich: Any) -> None:
    state = rich(tags={"a"}, price=Decimal("1.10"), due=date(2026, 1, 31), by_number={1: "one"})
    ctx = ThreadContext.for_test("hi")
    ctx.set_state("rich", state)
    stored = json.loads(json.dumps(sent(ctx)[0][1]))
    assert ThreadContext.for_test("hi", history=[("state.set.rich", stored)]).get_state("rich", rich) == state


@dataclasses.dataclass
class Hopeless:
    what: object


def test_a_state_that_cannot_be_json_is_named() -> None:
    with pytest.raises(UnstorableEvent, match=r"state\.set\.hopeless"):
        ThreadContext.for_test("hi").set_state("hopeless", Hopeless(object()))


def test_a_dict_is_a_state_too() -> None:
    ctx = ThreadContext.for_test("hi")
    ctx.set_state("cart", {"items": []})
    assert sent(ctx) == [("state.set.cart", {"items": []})]


def test_the_newest_stored_state_counts_and_what_the_run_itself_set_is_not_seen() -> None:
    history = [("state.set.n", {"v": 1}), ("state.set.n", {"v": 2}), ("state.set.nn", {"v": 9})]
    ctx = ThreadContext.for_test("hi", history=history)
    ctx.set_state("n", {"v": 3})
    assert ctx.get_state("n", dict) == {"v": 2}
    assert ctx.get_state("unknown", dict) is None
    assert ctx.get_state("unknown", CartModel) is None


@pytest.mark.parametrize(
    ("cart", "error"), [(CartModel, pydantic.ValidationError), (CartStruct, msgspec.ValidationError)]
)
def test_a_stored_state_that_does_not_fit_says_so(cart: Any, error: type[Exception]) -> None:
    ctx = ThreadContext.for_test("hi", history=[("state.set.cart", {"items": 5})])
    with pytest.raises(error):
        ctx.get_state("cart", cart)


async def test_statuses_reach_the_updater_and_are_not_sent() -> None:
    told: list[StatusEvent | str] = []

    class Updater:
        async def update_status(self, status: StatusEvent | str) -> None:
            told.append(status)

    ctx = ThreadContext.for_test("hi")
    await ctx.update_agent_status("nobody listens")
    assert ctx.with_status_updater(Updater()) is ctx
    await ctx.update_agent_status(StatusEvent("Thinking", "thinking"))
    await ctx.update_agent_status("plain")
    assert told == [StatusEvent(message="Thinking", status_type="thinking"), "plain"]
    assert ctx.outgoing_events == []


async def streamed(*pieces: str) -> ThreadContext:
    ctx = ThreadContext.for_test("hi")
    for piece in pieces:
        await ctx.stream(piece)
    return ctx


async def test_what_was_streamed_is_one_message_at_the_end() -> None:
    ctx = await streamed("to", "geth", "er")
    assert ctx.outgoing_events == []
    assert sent(ctx) == []
    assert [event.event_data["content"] for event in ctx.complete()] == ["together"]


async def test_a_message_that_begins_with_what_was_streamed_completes_it() -> None:
    for whole in ("together", "to"):
        ctx = await streamed("to")
        ctx.send_message(whole)
        assert [event.event_data["content"] for event in ctx.complete()] == [whole]


async def test_another_message_comes_after_what_was_streamed() -> None:
    ctx = await streamed("to", "day")
    ctx.send_message("other")
    await ctx.stream("again")
    assert [event.event_data["content"] for event in ctx.complete()] == ["today", "other", "again"]


async def test_buttons_may_complete_a_stream() -> None:
    ctx = await streamed("Choo")
    ctx.send_message_with_buttons("Choose", [])
    assert [event.event_type for event in ctx.complete()] == ["comm.assistant_message_with_buttons"]


async def test_a_piece_must_be_text() -> None:
    with pytest.raises(TypeError):
        await ThreadContext.for_test("hi").stream(5)  # type: ignore[arg-type] # that is the point


async def test_streaming_gives_the_loop_its_turn() -> None:
    turns: list[str] = []
    asyncio.get_running_loop().call_soon(turns.append, "turn")
    await ThreadContext.for_test("hi").stream("a")
    assert turns == ["turn"]


SPEAK: list[Callable[[ThreadContext], Any]] = [
    lambda ctx: ctx.send_message("late"),
    lambda ctx: ctx.send_message_with_buttons("late", []),
    lambda ctx: ctx.send_event("rag.late", {}),
    lambda ctx: ctx.set_state("late", {}),
    lambda ctx: ctx.stream("late"),
    lambda ctx: ctx.update_agent_status("late"),
]


async def told(speak: Callable[[ThreadContext], Any], ctx: ThreadContext) -> None:
    """Speak, whether it is to be awaited or not."""
    said = speak(ctx)
    if isinstance(said, Awaitable):
        await said


@pytest.mark.parametrize("speak", SPEAK, ids=["message", "buttons", "event", "state", "stream", "status"])
async def test_after_the_end_of_its_run_a_context_takes_nothing(speak: Callable[[ThreadContext], Any]) -> None:
    ctx = ThreadContext.for_test("hi")
    ctx.close()
    with pytest.raises(RunClosed):
        await told(speak, ctx)
    assert ctx.outgoing_events == []
    assert len(ctx.history) == 1


async def test_a_context_of_a_served_run_is_the_thread_s_own() -> None:
    seen: list[ThreadContext] = []

    async def answer(ctx: ThreadContext) -> None:
        seen.append(ctx)
        number = (ctx.get_state("count") or {"n": 0})["n"] + 1
        ctx.set_state("count", {"n": number})
        for word in ("Num", "ber ", str(number)):
            await ctx.stream(word)

    async with TestClient(create_api(JimsApp(answer), store="memory:")) as client:
        body = {"contact_id": "ann", "message": "hi", "thread_config": {"interface": "test"}}
        answers = [(await client.post("/api/v1/chat", json=body)).json() for _ in range(3)]
    assert [answer["assistant_messages"] for answer in answers] == [["Number 1"], ["Number 2"], ["Number 3"]]
    last = seen[-1]
    assert last.thread_id == UUID(answers[0]["thread_id"])
    assert last.thread_config == {"interface": "test"}
    assert [said["content"] for said in last.history] == ["hi", "Number 1", "hi", "Number 2", "hi"]
    assert last.events[0].event_type == "jims.lifecycle.thread_created"
    assert [event.created_at for event in last.events] == sorted(event.created_at for event in last.events)
    with pytest.raises(RunClosed):
        last.send_message("after the end")


async def test_a_long_thread_is_cut_and_load_events_reaches_back() -> None:
    seen: list[ThreadContext] = []
    loaded: list[list[Event]] = []

    async def answer(ctx: ThreadContext) -> None:
        seen.append(ctx)
        if ctx.get_last_user_message() == "look":
            loaded.append(await ctx.load_events(before=ctx.events[0]))
            loaded.append(await ctx.load_events(before=loaded[0][-1], limit=1))
            loaded.append(await ctx.load_events(limit=1))
        ctx.send_message("ok")

    async with TestClient(create_api(JimsApp(answer, context_events=2), store="memory:")) as client:
        for message in ("one", "two", "three", "look"):
            answered = await client.post("/api/v1/chat", json={"contact_id": "ann", "message": message})
            assert answered.status_code == 200, answered.text
    assert not seen[0].truncated
    assert seen[-1].truncated
    assert [said["content"] for said in seen[-1].history][-2:] == ["ok", "look"]
    before = [event.event_data.get("content") for event in loaded[0]]
    assert before[:3] == [None, "one", "ok"]
    assert [len(events) for events in loaded[1:]] == [1, 1]
    assert loaded[1][0].event_id == loaded[0][-2].event_id
    assert loaded[2][0].event_data["content"] == "look"


class Named:
    name = "by-name"

    async def __call__(self, ctx: ThreadContext) -> None:
        ctx.send_message(self.name)


class Nameless:
    async def __call__(self, ctx: ThreadContext) -> None:
        ctx.send_message("x")


def test_a_pipeline_is_called_by_its_own_name_never_by_its_repr() -> None:
    async def function(ctx: ThreadContext) -> None:
        ctx.send_message("x")

    assert [pipeline_name(pipeline) for pipeline in (function, Named(), Nameless())] == [
        "function",
        "by-name",
        "Nameless",
    ]


def test_the_last_user_message_is_the_same_however_it_is_asked_for() -> None:
    history = [("comm.user_message", {"role": "user", "content": "first"}), ("comm.note", ["no object"])]
    later = [("comm.assistant_message", {"role": "assistant", "content": "hi"}), ("own.user", {"role": "user"})]
    for message in ("last", None):
        ctx = ThreadContext.for_test(message, history=[*history, *later])  # type: ignore[list-item]
        expected = message or "first"
        assert ctx.get_last_user_message() == expected
        assert ctx.get_last_user_action() == ("user_message", expected)  # which reads all events
        assert ctx.get_last_user_message() == expected
    assert ThreadContext.for_test().get_last_user_message() is None


def test_what_a_pipeline_changes_in_its_events_is_what_it_reads_again() -> None:
    ctx = ThreadContext.for_test("a card number")
    ctx.events[-1].event_data["content"] = "[redacted]"
    assert ctx.get_last_user_message() == "[redacted]"
