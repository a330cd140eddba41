"""A bot that does what its message says, and between them all that the page shows."""

import asyncio
from typing import Annotated, Literal

import msgspec

from jimsapi import JimsApp, StatusEvent, ThreadContext

CYPHER = "MATCH (a:Animal {name: $name})-[:LIVES_ON]->(i:Island)\nRETURN i.name AS island LIMIT 1"
SQL = "SELECT name, weight FROM animals WHERE island = 'Rottnest' -- the smallest first\nORDER BY weight"
ANSWER = """Quokkas live on **Rottnest Island**, and also on *Bald Island*:

- They weigh `2.5` to `5` kg.
- Read more at [Wikipedia](https://en.wikipedia.org/wiki/Quokka).

| island | animals |
|---|---|
| Rottnest | 10000 |
| Bald | 600 |
"""
ATTACK = """<img src=x onerror="window.hurt=1"><script>window.hurt=1</script>
[click](javascript:window.hurt=1) [data](data:text/html,x) [good](https://example.org/) [mail](mailto:a@example.org)
"""
FORM = {
    "type": "object",
    "properties": {
        "seats": {"type": "integer", "title": "Seats"},
        "meal": {"type": "string", "enum": ["soup", "cake"], "title": "Meal"},
        "window": {"type": "boolean", "title": "At a window"},
    },
    "required": ["seats", "meal"],
}


class Place(msgspec.Struct):
    """Where somebody opens the door."""

    street: str
    floor: Annotated[int, msgspec.Meta(ge=0)] = 0


class Delivery(msgspec.Struct):
    who: Annotated[str, msgspec.Meta(description="The name at the door.")]
    to: Place
    kind: Literal["van", "bicycle"] = "van"
    back: Place | None = None
    tip: float | None = None


class Route(msgspec.Struct):
    name: str
    stops: list[Place]


doors: dict[str, asyncio.Event] = {}


async def tell(ctx: ThreadContext) -> None:
    """Answer as an agent does, with all kinds of steps."""
    await ctx.update_agent_status(StatusEvent("Asking the graph", "searching"))
    ctx.reasoning("The person asks about an animal. ")
    ctx.reasoning("The graph knows where it lives.")
    async with ctx.tool("graph", {"cypher": CYPHER, "parameters": {"name": "Quokka"}}) as call:
        call.result = [{"island": "Rottnest", "animals": 10000, "protected": True}] * 8
    async with ctx.tool("database", {"query": SQL}) as call:
        call.error = "the database is away"
    ctx.source(url="https://en.wikipedia.org/wiki/Quokka", title="Quokka")
    ctx.usage(model="small-model", input_tokens=812, output_tokens=44, cached_tokens=100, cost=0.0012)
    for piece in ANSWER.split(" "):
        await ctx.stream(piece if piece is ANSWER else f"{piece} ")


async def answer(ctx: ThreadContext) -> None:
    """Do what the message says."""
    command, _, argument = str(ctx.get_last_user_message()).partition(" ")
    match command:
        case "tell":
            await tell(ctx)
        case "ask":
            chosen = await ctx.ask("refund", "Refund **20 EUR**?", options=["yes", "no"])
            ctx.send_message(f"You chose {chosen}.")
        case "late":
            await doors.setdefault(argument, asyncio.Event()).wait()
            ctx.send_message(f"You chose {await ctx.ask('late', 'Now?', options=['yes', 'no'])}.")
        case "form":
            ctx.send_message(f"Booked: {await ctx.ask('trip', 'What do you want?', schema=FORM)}")
        case "free":
            ctx.send_message(f"Hello {await ctx.ask('name', 'What is your name?')}.")
        case "deliver":
            ctx.send_message(f"Delivery: {await ctx.ask('delivery', 'Where to?', schema=Delivery)}")
        case "route":
            ctx.send_message(f"Route: {await ctx.ask('route', 'Which way?', schema=Route)}")
        case "stays":
            ctx.send_message(f"It stays: {await ctx.ask('stay', 'When?', options=['now'], stays_open=True)}")
        case "keeps":
            ctx.send_message(f"It keeps: {await ctx.ask('keep', 'Which name?', stays_open=True)}")
        case "buttons":
            ctx.send_message_with_buttons("Choose", [{"text": "say one"}, {"text": "say two"}])
        case "attack":
            ctx.send_message(ATTACK)
        case "repeat":
            ctx.send_message(ATTACK.join(["", argument]))
        case "stream":
            await ctx.stream("Wait, ")
            await doors.setdefault(argument, asyncio.Event()).wait()
            for number in range(3000):
                await ctx.stream(f"{number} ")
        case "hold":
            await ctx.update_agent_status(StatusEvent("Waiting at the door", "waiting"))
            await ctx.stream("Wait, ")
            await doors.setdefault(argument, asyncio.Event()).wait()
            await ctx.stream("done")
        case "think":
            ctx.reasoning("The person waits. ")
            await doors.setdefault(argument, asyncio.Event()).wait()
            ctx.reasoning("Not any more.")
            ctx.send_message("thought")
        case "open":
            doors.setdefault(argument, asyncio.Event()).set()
            ctx.send_message("open")
        case "fail":
            raise RuntimeError("no model")
        case "flood":
            for number in range(int(argument)):
                ctx.send_event("note.number", {"number": number})
            ctx.send_message(f"That were {argument}.")
        case _:
            for file in ctx.files:
                ctx.send_message(f"{file.name} has {len(await file.read())} bytes.")
            said = [message["content"] for message in ctx.history if message["role"] == "user"]
            ctx.send_message(f"You said {', '.join(said)}")


app = JimsApp(answer)
