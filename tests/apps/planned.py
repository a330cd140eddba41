"""A bot that does the steps that its message names, so that a test knows what every run must do.

A message is `LABEL; STEP STEP …`, and a step is `KIND:KEY`:

- `once` has an effect under `ctx.once`: a line in the file in `EFFECTS`, which no store knows of;
- `tool` calls a tool;
- `choose` asks for `yes` or `no`, and `tell` for any text; `brief` is a `choose` that soon expires, and `lasting` one
  that other messages do not close.

The answer is the label, and `KEY=VALUE` for each effect and each question.
"""

import asyncio
import os
from uuid import uuid4

from jimsapi import JimsApp, ThreadContext

EFFECTS = "PLANNED_EFFECTS"
BRIEF = 0.3
"""Seconds after which a `brief` question expires."""
TAKES = 0.03
"""Seconds that a tool takes, and that pass between an effect and its end. A kill may come in them."""


async def have_effect(label: str, key: str) -> str:
    """Write a line: a value of this call's own, the label, the key and the process. Returns the value."""
    value = uuid4().hex
    file = os.open(os.environ[EFFECTS], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        os.write(file, f"{value} {label} {key} {os.getpid()}\n".encode())
    finally:
        os.close(file)
    await asyncio.sleep(TAKES)
    return value


async def follow_plan(ctx: ThreadContext) -> None:
    """Do the steps of the message that began the turn."""
    label, _, plan = str(ctx.get_last_user_message()).partition(";")
    said = [label]
    for step in plan.split():
        kind, _, key = step.partition(":")
        if kind == "tool":
            async with ctx.tool(key, {"label": label}) as call:
                await asyncio.sleep(TAKES)
                call.result = key
        elif kind == "once":
            said.append(f"{key}={await ctx.once(key, have_effect, label, key)}")
        else:
            answer = await ctx.ask(
                key,
                f"{label} {key}?",
                options=None if kind == "tell" else ["yes", "no"],
                expires=BRIEF if kind == "brief" else None,
                stays_open=kind == "lasting",
            )
            said.append(f"{key}={answer}")
    ctx.send_message(" ".join(said))


app = JimsApp(follow_plan)
