"""A bot that asks for a form before it registers somebody."""

import json

from jimsapi import JimsApp, ThreadContext

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


async def register(ctx: ThreadContext) -> None:
    """Registers people for the race."""
    person = await ctx.ask("person", "Who are you?", schema=FORM)
    ctx.send_message(json.dumps(person, sort_keys=True))


app = JimsApp(register)
