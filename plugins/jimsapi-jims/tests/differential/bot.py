"""The JIMS app that both servers serve: a message `!name` is what it should do, and any other is repeated."""

import asyncio
import datetime as dt
import decimal
import enum
import uuid
from collections.abc import Callable
from typing import Any

import sqlalchemy.ext.asyncio as sa_aio
from jims_core.app import JimsApp
from jims_core.db import Base
from jims_core.thread.schema import EventEnvelope
from jims_core.thread.thread_context import StatusEvent, ThreadContext
from jims_core.util import uuid7
from pydantic import BaseModel

MOMENT = dt.datetime(2026, 2, 3, 4, 5, 6)


class Mood(BaseModel):
    name: str
    strength: int = 3


class Colour(enum.Enum):
    RED = "red"


DATA: dict[str, Any] = {
    "!plain data": {"text": "ü 😀 \u2028 </script>", "n": [0, -1, 2**63 - 1, 1.5, 1e300, -0.0], "none": [None, True]},
    "!number keys": {1: "one", 2.5: "two and a half", None: "none"},
    "!tuple": {"pair": (1, ("a", None))},
    "!empty data": {},
    "!not a number": {"n": [float("nan"), float("inf"), float("-inf")]},
    "!datetime": {"at": MOMENT},
    "!date": {"on": MOMENT.date()},
    "!uuid": {"id": uuid.UUID(int=7)},
    "!enum": {"colour": Colour.RED},
    "!decimal": {"price": decimal.Decimal("1.10")},
    "!set": {"tags": {"a"}},
    "!bytes": {"raw": b"\x00\xff"},
    "!object": {"it": Mood(name="glad")},
    "!64 bits": {"n": 2**64 - 1},
    "!over 64 bits": {"n": 2**70},
    "!nul": {"text": "a\0b"},
    "!surrogate": {"text": "a\ud800b"},
    "!nested 100": {},
    "!nested 300": {},
}
"""What a pipeline may put into an event, by the message that asks for it."""

ERRORS: dict[str, Callable[[], BaseException]] = {
    "!fail": lambda: ValueError("no answer to that"),
    "!fail without a word": RuntimeError,
    "!fail in unicode": lambda: RuntimeError('не могу 😀\n"quoted"'),
    "!fail by key": lambda: KeyError("user"),
    "!fail by os": lambda: FileNotFoundError(2, "No such file or directory", "model.bin"),
    "!fail by timeout": TimeoutError,
    "!fail as a group": lambda: ExceptionGroup("two faults", [ValueError("a"), ValueError("b")]),
    "!fail with a surrogate": lambda: RuntimeError("a\ud800b"),
    "!exit": lambda: SystemExit(3),
    "!cancel": asyncio.CancelledError,
}


def nested(levels: int) -> Any:
    data: Any = "core"
    for _ in range(levels):
        data = {"in": data}
    return data


def seen(ctx: ThreadContext) -> dict[str, Any]:
    """All that a pipeline sees of a thread, without ids and times."""
    mood = ctx.get_state("mood", Mood)
    return {
        "history": list(ctx.history),
        "events": [[event.event_type, event.event_data] for event in ctx.events],
        "thread_config": ctx.thread_config,
        "last_user_message": ctx.get_last_user_message(),
        "last_user_action": list(ctx.get_last_user_action()),  # type: ignore[no-untyped-call] # jims-core leaves it so
        "context": list(ctx.context(conversation_length=2)),
        "mood": None if mood is None else mood.model_dump(),
    }


def outgoing(ctx: ThreadContext, event_type: str, data: Any, event_id: uuid.UUID | None = None) -> None:
    """Send an event as apps do that extend the list by hand."""
    event = EventEnvelope[Any](
        thread_id=ctx.thread_id,
        event_id=event_id or uuid7(),
        created_at=MOMENT,
        event_type=event_type,
        event_data=data,
    )
    ctx.outgoing_events.append(event)


async def look(ctx: ThreadContext) -> None:
    ctx.send_event("app.seen", seen(ctx))


async def talk(ctx: ThreadContext) -> None:
    await ctx.update_agent_status("thinking")
    await ctx.update_agent_status(StatusEvent("Thinking", "thinking"))
    for text in ("one", "", "three"):
        ctx.send_message(text)
    ctx.send_event("rag.query_processed", {"threshold": 0.8})
    ctx.send_message_with_buttons("choose", [{"text": "a", "payload": {"x": 1}}, {}])
    ctx.set_state("mood", Mood(name="glad"))
    ctx.set_state("plan", {"steps": []})
    ctx.send_event("context.note", {"role": "system", "content": "noted"})


async def by_hand(ctx: ThreadContext) -> None:
    ctx.send_message("gone")
    ctx.outgoing_events.clear()
    for data in (None, [1, 2], "text", {"content": "kept"}):
        outgoing(ctx, "app.by_hand", data)
    outgoing(ctx, "comm.assistant_message", {"role": "assistant"})
    outgoing(ctx, "comm.assistant_message.sub", {"role": "assistant", "content": "of a kind of its own"})


async def odd_texts(ctx: ThreadContext) -> None:
    for text in (5, None, 1.5, {"a": "b"}):
        outgoing(ctx, "comm.assistant_message", {"role": "assistant", "content": text})


async def twice(ctx: ThreadContext) -> None:
    one = uuid7()
    outgoing(ctx, "app.first", {}, one)
    outgoing(ctx, "app.second", {}, one)


async def long_type(ctx: ThreadContext) -> None:
    ctx.send_event("app." + "x" * 252, {})


async def big(ctx: ThreadContext) -> None:
    ctx.send_message("ü" * 500_000)
    ctx.send_event("app.many", {"numbers": list(range(10_000))})


async def half(ctx: ThreadContext) -> None:
    ctx.send_message("half")
    raise RuntimeError("stopped after half of it")


async def no_object(ctx: ThreadContext) -> None:
    ctx.send_event("app.list", [1])


async def report(ctx: ThreadContext) -> None:
    await ctx.update_agent_status(StatusEvent("Reading", "reading"))
    for text in ("", "ü 😀 e\u0301", "a\nb\r\nc\rd", "\u2028 \u2029 \x85", '"\\\0\x1b', "event: result\ndata: {}\n\n"):
        await ctx.update_agent_status(StatusEvent(text, "odd text"))
    await ctx.update_agent_status(StatusEvent("Of an odd kind", "ü\n\u2028\x85"))
    ctx.send_message("said between two")
    await ctx.update_agent_status(StatusEvent("Ready", ""))


async def report_in_text(ctx: ThreadContext) -> None:
    await ctx.update_agent_status("thinking")
    ctx.send_message("thought")


async def report_no_text(ctx: ThreadContext) -> None:
    given: Any = 5
    await ctx.update_agent_status(StatusEvent(given, given))
    ctx.send_message("counted")


async def report_nothing(ctx: ThreadContext) -> None:
    given: Any = {"status": "Lost", "type": "lost"}
    await ctx.update_agent_status(given)
    ctx.send_message("looked")


async def report_half_a_pair(ctx: ThreadContext) -> None:
    await ctx.update_agent_status(StatusEvent("a\ud800b", "odd"))
    ctx.send_message("said")


async def report_much(ctx: ThreadContext) -> None:
    for number in range(300):
        await ctx.update_agent_status(StatusEvent(f"{number} of 300", "counting"))
    await ctx.update_agent_status(StatusEvent("ü" * 50_000, "big"))
    ctx.send_message("counted")


async def report_and_fail(ctx: ThreadContext) -> None:
    await ctx.update_agent_status(StatusEvent("Reading", "reading"))
    ctx.send_message("half")
    raise RuntimeError("stopped after half of it")


async def report_and_wait(ctx: ThreadContext) -> None:
    await ctx.update_agent_status(StatusEvent("Waiting", "waiting"))
    await asyncio.sleep(0.3)
    ctx.send_message("worth the wait")


async def slowly(ctx: ThreadContext) -> None:
    await asyncio.sleep(0.3)
    ctx.send_message(f"{len(ctx.history)} said so far")


async def in_a_moment(ctx: ThreadContext) -> None:
    await asyncio.sleep(0.05)
    ctx.send_message("here")


ACTIONS = {
    "!look": look, "!talk": talk, "!by hand": by_hand, "!odd texts": odd_texts, "!twice": twice, "!half": half,
    "!long type": long_type, "!big": big, "!no object": no_object, "!slowly": slowly, "!moment": in_a_moment,
    "!report": report, "!report in text": report_in_text, "!report no text": report_no_text,
    "!report nothing": report_nothing, "!report half a pair": report_half_a_pair, "!report much": report_much,
    "!report and fail": report_and_fail, "!report and wait": report_and_wait,
}  # fmt: skip


class Steered:
    """The pipeline."""

    async def __call__(self, ctx: ThreadContext) -> None:
        said = ctx.get_last_user_message() or ""
        if said in ACTIONS:
            await ACTIONS[said](ctx)
        elif said in ERRORS:
            raise ERRORS[said]()
        elif said in DATA:
            levels = said.removeprefix("!nested ")
            ctx.send_event("app.data", nested(int(levels)) if levels.isdigit() else DATA[said])
        elif said != "!silent":
            ctx.send_message(f"Echo: {said}")


async def greet(ctx: ThreadContext) -> None:
    """The conversation-start pipeline; the thread's configuration may have it fail."""
    if ctx.thread_config.get("start") == "fail":
        raise RuntimeError("nobody is up yet")
    await ctx.update_agent_status(StatusEvent("Welcoming", "welcome"))
    ctx.send_message("Welcome")
    ctx.set_state("mood", Mood(name="fresh"))


async def make_app() -> JimsApp:
    engine = sa_aio.create_async_engine("sqlite+aiosqlite:///jims.sqlite")
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    sessions = sa_aio.async_sessionmaker(engine, expire_on_commit=False)
    return JimsApp(sessionmaker=sessions, pipeline=Steered(), conversation_start_pipeline=greet)


app = make_app()
