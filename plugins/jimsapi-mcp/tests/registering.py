"""A bot that asks for a form before it registers somebody, and pays what other messages say, as `asking` does."""

import json

from jimsapi import JimsApp, ThreadContext
from tests.apps import asking

FORM = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "title": "Name", "minLength": 1},
        "age": {"type": "integer", "minimum": 18},
        "news": {"type": "boolean", "default": False},
        "size": {"type": "string", "enum": ["S", "M", "L"]},
    },
    "required": ["name", "age"],
}


async def answer(ctx: ThreadContext) -> None:
    """Registers people for the race, and pays."""
    if ctx.get_last_user_message() != "Register me":
        await asking.answer(ctx)
        return
    person = await ctx.ask("person", "Who are you?", schema=FORM)
    ctx.send_message(json.dumps(person, sort_keys=True))


app = JimsApp(answer)
