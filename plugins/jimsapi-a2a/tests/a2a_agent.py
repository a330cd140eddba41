"""An agent for tests, whose message says what it does. What waits, waits for a file in the folder `AGENT_FOLDER`."""

import asyncio
import os
from pathlib import Path

from jimsapi import JimsApp, StatusEvent, ThreadContext

LOOK_EVERY = 0.005


async def answer(ctx: ThreadContext) -> None:
    """Do what the newest message says."""
    text = str(ctx.get_last_user_message())
    match text.split():
        case ["hold", name]:
            await ctx.update_agent_status(StatusEvent("Looking", "step"))
            await ctx.stream("Hel")
            await _file(name)
            await ctx.stream("lo")
        case ["ask", *_]:
            city = await ctx.ask("city", "Which city?")
            ctx.send_message(f"It rains in {city}")
        case ["ask-and-hold", name]:
            city = await ctx.ask("city", "Which city?")
            await _file(name)
            ctx.send_message(f"It rains in {city}")
        case ["fail"]:
            raise RuntimeError("broken")
        case ["files"]:
            seen = [f"{file.name} {file.type} {(await file.read()).decode()}" for file in ctx.files]
            ctx.send_message("; ".join(seen))
        case ["report", size]:
            file = await ctx.save_file("report.txt", b"x" * int(size))
            await ctx.stream("Here ")
            ctx.send_message("Here it is.", files=[file])
        case ["data"]:
            ctx.send_event("weather.report", {"city": "Perth", "degrees": 31})
        case _:
            ctx.send_message(f"You said: {text}")


async def _file(name: str) -> None:
    while not (Path(os.environ["AGENT_FOLDER"]) / name).exists():
        await asyncio.sleep(LOOK_EVERY)


app = JimsApp(answer, name="weather", restarts=2)
