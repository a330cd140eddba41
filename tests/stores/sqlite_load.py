"""A process that holds an SQLite store, for tests that kill it: `python sqlite_load.py PATH idle|load`.

Under `load` sixteen clients chat for ever; each acknowledged turn is a line `done THREAD MESSAGE ANSWER`.
"""

import asyncio
import os
import sys
from uuid import UUID

from jimsapi.stores.sqlite import SQLiteStore
from jimsapi.testing.store import completed, make_event, make_plan
from jimsapi.threads.errors import StoreUnavailable
from jimsapi.threads.ids import uuid7
from jimsapi.threads.run import Outcome, RunStatus

REFUSED_FOR = 0.01
"""Seconds between two attempts."""


async def main(path: str, mode: str) -> None:
    owner = uuid7()
    async with SQLiteStore(path) as store:
        await store.recover(owner)
        print("open", flush=True)
        if mode == "load":
            await asyncio.gather(*[_chat(store, owner, f"client-{number}") for number in range(16)])
        await asyncio.Event().wait()


async def _chat(store: SQLiteStore, owner: UUID, client: str) -> None:
    number = 0
    while True:
        plan = make_plan(f"{client}-{number // 5}", "Hello", owner=owner)
        answer = make_event()
        number += 1
        try:
            accepted = await store.accept(plan)
        except StoreUnavailable:
            await asyncio.sleep(REFUSED_FOR)
            continue
        # A run that is left open would keep the thread's later messages from coming in.
        while not await _finished(store, plan.run_id, owner, completed(answer)):
            await asyncio.sleep(REFUSED_FOR)
        line = f"done {accepted.thread.thread_id} {plan.message.event_id.hex} {answer.event_id.hex}\n"
        os.write(1, line.encode())  # one write, so that a kill cannot cut what was acknowledged in two


async def _finished(store: SQLiteStore, run_id: UUID, owner: UUID, outcome: Outcome) -> bool:
    try:
        settled = await store.finish(run_id, owner, outcome)
    except StoreUnavailable:
        return False
    assert settled.status is RunStatus.COMPLETED
    return True


asyncio.run(main(*sys.argv[1:]))
