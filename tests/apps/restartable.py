"""A bot whose runs wait for a file, so that a test can kill their process, and that notes what happens to them.

Everything is in the folder that the environment variable `RESTARTABLE` names. A run notes its start and its
cancellation in `notes`, has one effect under `ctx.once`, which is a line in `effects`, and waits for the file that its
message names. Its answer is the message. The runs of `app` may start again twice, those of `plain` may not.
"""

import asyncio
import os
from pathlib import Path

from jimsapi import JimsApp, ThreadContext

FOLDER = "RESTARTABLE"
LOOK_EVERY = 0.005


def note(name: str, line: str) -> None:
    """Add a line to a file of the folder."""
    with (Path(os.environ[FOLDER]) / name).open("a") as file:
        file.write(f"{line}\n")


def have_effect(message: str) -> str:
    """Have the effect of a message."""
    note("effects", message)
    return message


async def work(ctx: ThreadContext) -> None:
    """Have an effect, wait for the file, and answer."""
    message = str(ctx.get_last_user_message())
    await ctx.once("effect", have_effect, message)
    note("notes", f"{message} started by {os.getpid()}")
    try:
        while not (Path(os.environ[FOLDER]) / message).exists():
            await asyncio.sleep(LOOK_EVERY)
    except asyncio.CancelledError:
        note("notes", f"{message} cancelled in {os.getpid()}")
        raise
    ctx.send_message(message)


app = JimsApp(work, restarts=2)
plain = JimsApp(work)
