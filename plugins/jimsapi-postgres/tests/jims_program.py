"""A program on jims-core, for tests: reads commands as lines of JSON, answers each with one.

`make` makes JIMS's tables; `new`, `say` and `read` are what a ThreadController does.
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
from jims_core.thread.thread_controller import ThreadController
from jims_core.util import uuid7
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine


async def main(url: str) -> None:
    engine = create_async_engine(url)
    sessions = async_sessionmaker(engine, expire_on_commit=False)
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    print(json.dumps("ready"), flush=True)
    while line := await asyncio.to_thread(sys.stdin.readline):
        print(json.dumps(await answer(sessions, *json.loads(line))), flush=True)
    await engine.dispose()


async def answer(sessions: async_sessionmaker, command: str, *arguments: str) -> object:
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
    context = await controller.make_context()
    return [[event.event_id.hex, event.event_type, event.event_data, str(event.created_at)] for event in context.events]


asyncio.run(main(sys.argv[1]))
