"""A bot that blocks the event loop as its message says, such as `sleep 3`."""

import asyncio
import pdb
import re
import time

from jimsapi import JimsApp, ThreadContext


class Held(pdb.Pdb):
    """A debugger that stands at a prompt for a time."""

    def user_line(self, frame: object) -> None:
        time.sleep(1.5)
        self.set_continue()


def rest(seconds: float) -> None:
    """Wait, as a client of some library does."""
    time.sleep(seconds)


def think(seconds: float) -> None:
    """Compute, as Python code does: for so many seconds of the processor, however long that takes."""
    until = time.thread_time() + seconds
    while time.thread_time() < until:
        pass


async def search(seconds: float) -> None:
    """Block in a task of the pipeline's own."""
    rest(seconds)


async def answer(ctx: ThreadContext) -> None:
    """Block, then answer."""
    command, _, argument = str(ctx.get_last_user_message()).partition(" ")
    match command:
        case "sleep":
            rest(float(argument))
        case "compute":
            think(float(argument))
        case "match":
            await asyncio.sleep(float(argument))
            re.match("(a+)+$", "a" * 26 + "b")
        case "child":
            await asyncio.create_task(search(float(argument)))
        case "debug":
            Held().set_trace()
            think(0)
        case "many":
            await asyncio.gather(*(search(0.1) for _ in range(int(argument))))
    ctx.send_message("done")


app = JimsApp(answer)
