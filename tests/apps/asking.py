"""A bot that asks before it pays, and writes a line to the file in `PAID` for each payment."""

import asyncio
import os

from jimsapi import JimsApp, ThreadContext


def pay(amount: str) -> str:
    """Pay, which must not happen twice."""
    with open(os.environ["PAID"], "a", encoding="utf-8") as file:
        file.write(f"{amount}\n")
    return f"R-{amount}"


async def answer(ctx: ThreadContext) -> None:
    """Pay what the newest message says, if a person approves, and ask what the person thinks of it."""
    amount = str(ctx.get_last_user_message())
    if await ctx.ask("pay", f"Pay {amount}?", options=["yes", "no"]) == "no":
        ctx.send_message("not paid")
        return
    receipt = await ctx.once("pay", pay, amount)
    happy = await ctx.ask("happy", "Are you happy?")
    ctx.send_message(f"{receipt}: {happy}")


async def ask_both(ctx: ThreadContext) -> None:
    """Ask two questions at the same time."""
    name, city = await asyncio.gather(ctx.ask("name", "Your name?"), ctx.ask("city", "Your city?"))
    ctx.send_message(f"{name} of {city}")


app = JimsApp(answer)
both = JimsApp(ask_both)
