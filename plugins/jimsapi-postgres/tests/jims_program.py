"""A program on jims-core, for tests: reads commands as lines of JSON, answers each with one.

`open` connects to a database and makes JIMS's tables where they are missing; the others are what a ThreadController
does.
"""
# It runs in an environment of its own, which the type checker has not.
# mypy: ignore-errors

import asyncio
import json
import os
import sys
from uuid import UUID

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # else its import waits for the network

from jims_core.db import Base
from jims_core.thread.thread_context import ThreadContext
from jims_core.thread.thread_controller import ThreadController
from jims_core.util import uuid7
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine


async def main() -> None:
    print(json.dumps("ready"), flush=True)
    engine = None
    while line := await asyncio.to_thread(sys.stdin.readline):
        command, *arguments = json.loads(line)
        if command == "open":
            engine = create_async_engine(arguments[0])
            async with engine.begin() as connection:
                await connection.run_sync(Base.metadata.create_all)
            answer = None
        elif command == "close":
            answer = await engine.dispose()
        else:
            answer = await do(async_sessionmaker(engine, expire_on_commit=False), command, *arguments)
        print(json.dumps(answer), flush=True)


async def do(sessions: async_sessionmaker, command: str, *arguments: str) -> object:
    if command == "new":
        contact_id, external_id = arguments
        made = await ThreadController.new_thread_via_external_id(sessions, external_id, {"lang": "é"}, contact_id)
        return made.thread.thread_id.hex
    if command == "latest":
        controller = await ThreadController.latest_thread_from_contact_id(sessions, arguments[0])
        return controller and controller.thread.thread_id.hex
    controller = await ThreadController.from_thread_id(sessions, UUID(arguments[0]))
    if controller is None:
        return None
    if command == "say":
        event_id = uuid7()
        await controller.store_user_message(event_id, arguments[1])
        return event_id.hex
    if command == "turn":
        return await turn(controller, arguments[1])
    events = (await controller.make_context()).events
    if command == "read":
        return [[event.event_id.hex, event.event_type, event.event_data, str(event.created_at)] for event in events]
    assert command == "newest"
    return [len(events), [event.event_id.hex for event in events[-4:]]]


async def turn(controller: ThreadController, text: str) -> object:
    """Answer a message as JIMS's own front ends do. Returns what a model would have read, and what was stored."""
    read = {}

    async def pipeline(ctx: ThreadContext) -> None:
        read.update(history=ctx.history, context=ctx.context(), last=ctx.get_last_user_message())
        read["types"] = [event.event_type for event in ctx.events]
        ctx.send_event("rag.query_processed", {"of": "JIMS"})
        ctx.set_state("of_jims", {"turns": len(ctx.history)})
        ctx.send_message(f"JIMS heard {text}")

    await controller.store_user_message(uuid7(), text)
    sent = await controller.run_pipeline_with_context(pipeline)
    return {**read, "stored": [event.event_id.hex for event in sent]}


asyncio.run(main())
