"""The context of a JIMS pipeline, and the storage of its events."""

import copy
import dataclasses
import datetime as dt
import pickle
from typing import Any

import pytest
from jims_core.llms.llm_provider import LLMProvider
from jims_core.thread.schema import EventEnvelope
from jims_core.thread.thread_context import StatusEvent as JimsStatusEvent
from jims_core.thread.thread_context import ThreadContext as JimsContext
from jims_core.util import uuid7
from jimsapi_jims.adapted import JimsPipeline
from pydantic import BaseModel

from jimsapi import StatusEvent, ThreadContext

pytestmark = pytest.mark.anyio

HISTORY = [
    ("jims.lifecycle.thread_created", {}),
    ("comm.user_message", {"role": "user", "content": "one"}),
    ("rag.query_processed", {"threshold": 0.8}),
    ("context.note", {"role": "system", "content": "noted"}),
    ("comm.odd", None),
    ("comm.assistant_message", {"role": "assistant", "content": "two"}),
]


class Mood(BaseModel):
    name: str
    since: dt.datetime


async def run(pipeline: Any, ctx: ThreadContext) -> list[tuple[str, Any]]:
    """Run a JIMS pipeline on a context of ours; returns what it sent."""
    await JimsPipeline(pipeline, "pipeline")(ctx)
    return [(event.event_type, event.event_data) for event in ctx.outgoing_events]


async def test_it_sees_the_thread_through_jims_cores_own_context() -> None:
    seen: list[JimsContext] = []

    async def look(ctx: JimsContext) -> None:
        seen.append(ctx)

    ours = ThreadContext.for_test("three", history=HISTORY, thread_config={"interface": "api"})  # type: ignore[arg-type] # None as data
    await run(look, ours)
    [ctx] = seen
    assert type(ctx) is JimsContext
    assert {type(event) for event in ctx.events} == {EventEnvelope}
    assert [(e.thread_id, e.event_id, e.created_at, e.event_type, e.event_data) for e in ctx.events] == [
        (ours.thread_id, e.event_id, e.created_at, e.event_type, e.event_data) for e in ours.events
    ]
    assert [said["content"] for said in ctx.history] == ["one", "two", "three"]
    assert (ctx.thread_id, ctx.thread_config) == (ours.thread_id, {"interface": "api"})
    assert ctx.get_last_user_message() == "three"


async def test_each_run_has_an_llm_provider_of_its_own() -> None:
    seen: list[LLMProvider] = []

    async def look(ctx: JimsContext) -> None:
        seen.append(ctx.llm)

    await run(look, ThreadContext.for_test("one"))
    await run(look, ThreadContext.for_test("two"))
    assert [type(llm) for llm in seen] == [LLMProvider, LLMProvider]
    assert seen[0] is not seen[1]
    assert seen[0].model == LLMProvider().model


async def test_what_it_sends_comes_back_in_order_with_its_identifiers() -> None:
    by_hand = EventEnvelope(
        thread_id=uuid7(),
        event_id=uuid7(),
        created_at=dt.datetime(2020, 1, 1),
        event_type="story.started",
        event_data={"story": "sale"},
    )
    sent: list[EventEnvelope[Any]] = []

    async def talk(ctx: JimsContext) -> None:
        ctx.send_message("hello")
        ctx.outgoing_events += [by_hand]
        ctx.send_message_with_buttons("which?", [{"text": "a"}])
        ctx.send_event("rag.done", {"n": 1})
        ctx.set_state("mood", {"name": "glad"})
        sent.extend(ctx.outgoing_events)

    ctx = ThreadContext.for_test("hi")
    assert await run(talk, ctx) == [
        ("comm.assistant_message", {"role": "assistant", "content": "hello"}),
        ("story.started", {"story": "sale"}),
        ("comm.assistant_message_with_buttons", {"role": "assistant", "content": "which?", "buttons": [{"text": "a"}]}),
        ("rag.done", {"n": 1}),
        ("state.set.mood", {"name": "glad"}),
    ]
    assert [event.event_id for event in ctx.outgoing_events] == [event.event_id for event in sent]


async def test_a_list_put_in_place_of_the_outgoing_events_is_what_counts() -> None:
    async def replace(ctx: JimsContext) -> None:
        ctx.send_message("draft")
        ctx.outgoing_events = []
        ctx.send_message("final")

    [(_, said)] = await run(replace, ThreadContext.for_test("hi"))
    assert said["content"] == "final"


async def test_it_reads_stored_states_as_its_own_models() -> None:
    stored = {"name": "glad", "since": "2026-01-02T03:04:05"}
    seen: list[Mood | None] = []

    async def look(ctx: JimsContext) -> None:
        seen.extend([ctx.get_state("mood", Mood), ctx.get_state("other", Mood)])

    await run(look, ThreadContext.for_test("hi", history=[("state.set.mood", stored)]))
    assert seen == [Mood(name="glad", since=dt.datetime(2026, 1, 2, 3, 4, 5)), None]


async def test_statuses_of_both_kinds_reach_who_watches_our_context() -> None:
    told: list[StatusEvent | str] = []

    class Watcher:
        async def update_status(self, status: StatusEvent | str) -> None:
            told.append(status)

    async def work(ctx: JimsContext) -> None:
        await ctx.update_agent_status(JimsStatusEvent("Searching…", "searching"))
        await ctx.update_agent_status("thinking")

    await run(work, ThreadContext.for_test("hi").with_status_updater(Watcher()))
    assert told == [StatusEvent("Searching…", "searching"), "thinking"]


async def test_a_context_may_be_copied_and_pickled_as_jims_cores_may() -> None:
    told: list[StatusEvent | str] = []
    pickled: list[JimsContext] = []

    class Watcher:
        async def update_status(self, status: StatusEvent | str) -> None:
            told.append(status)

    async def work(ctx: JimsContext) -> None:
        dataclasses.asdict(ctx)
        attempt = copy.deepcopy(ctx)
        attempt.send_message("an attempt that is thrown away")
        await attempt.update_agent_status("of the copy")
        pickled.append(pickle.loads(pickle.dumps(ctx)))
        await pickled[0].update_agent_status("of another process")

    ctx = ThreadContext.for_test("hi").with_status_updater(Watcher())
    assert await run(work, ctx) == []
    assert told == ["of the copy"]
    assert pickled[0].events[0].event_data == {"role": "user", "content": "hi"}
