"""A bot that cancels tasks which are not its own."""

import asyncio

from jimsapi import ThreadContext
from tests.apps.scripted import Scripted


class Careless(Scripted):
    """A bot that cancels all tasks on `cancel now`, or from a timer on `cancel later`; but those of the test."""

    def __init__(self) -> None:
        super().__init__()
        self._spared = asyncio.all_tasks()

    async def do(self, ctx: ThreadContext, command: str, argument: str) -> None:
        match command:
            case "cancel":
                others = asyncio.all_tasks() - self._spared - {asyncio.current_task()}
                assert others
                if argument == "later":
                    for task in others:
                        asyncio.get_running_loop().call_soon(task.cancel)
                else:
                    for task in others:
                        task.cancel()
                for _ in range(5):
                    await asyncio.sleep(0)
            case _:
                await super().do(ctx, command, argument)
