"""A bot that tells what it saw, and that does what `tests.apps.steered` does.

`tell` is answered with an event `rag.seen` and a message in JSON: how many events the context holds (`events`), the
newest three (`newest`), and how many messages of the person and of the assistant (`asked`, `answered`). If another run
of the thread is at work meanwhile, in whatever process, it fails: `WITNESS_FOLDER` names a folder for threads' locks.
"""

import asyncio
import fcntl
import json
import os
from pathlib import Path

from jimsapi import JimsApp, ThreadContext
from tests.apps.steered import steered


async def witness(ctx: ThreadContext) -> None:
    """Tell what the context holds, or do as the other bot does."""
    if ctx.get_last_user_message() != "tell":
        await steered(ctx)
        return
    with Path(os.environ["WITNESS_FOLDER"], ctx.thread_id.hex).open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        await asyncio.sleep(0.001)
        roles = [said["role"] for said in ctx.history]
        seen = {
            "events": len(ctx.events),
            "newest": [event.event_id.hex for event in ctx.events[-3:]],
            "asked": roles.count("user"),
            "answered": roles.count("assistant"),
        }
        ctx.send_event("rag.seen", {})
        ctx.send_message(json.dumps(seen))


app = JimsApp(witness)
