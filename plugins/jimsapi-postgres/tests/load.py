"""A process that chats through a store for ever, for tests that kill it: `python load.py URL`.

Each acknowledged turn is a line `THREAD MESSAGE ANSWER`; a line `open` comes first. The contact `slow` gets no answer.
"""

import asyncio
import os
import sys

from jimsapi_postgres.store import PostgresStore

from jimsapi.testing.store import completed, make_event, make_plan
from jimsapi.threads.ids import uuid7
from jimsapi.threads.run import RunStatus


async def main(url: str) -> None:
    owner = uuid7()

    async def chat(client: int) -> None:
        number = 0
        while True:
            plan, answer = make_plan(f"{client}-{number // 5}", owner=owner), make_event()
            accepted = await store.accept(plan)
            assert accepted.status is RunStatus.RUNNING
            await store.finish(plan.run_id, owner, completed(answer))
            line = f"{accepted.thread.thread_id} {plan.message.event_id} {answer.event_id}\n"
            os.write(1, line.encode())  # one write, so that a kill cannot cut what was acknowledged in two
            number += 1

    async with PostgresStore(url) as store:
        await store.recover(owner)
        for text in ("is worked on", "waits"):
            await store.accept(make_plan("slow", text, owner=owner))
        os.write(1, b"open\n")
        await asyncio.gather(*map(chat, range(16)))


asyncio.run(main(sys.argv[1]))
