"""What Deep Chat shows: the next piece of a text, or what went wrong."""

from collections.abc import AsyncIterator
from typing import Any

from jimsapi.asgi.connection import Connection
from jimsapi.wire.answer import Refusal, data_event, failure
from jimsapi.wire.speech import Failed, Finished


def error_body(refusal: Refusal) -> dict[str, Any]:
    """What went wrong."""
    return {"error": refusal.text}


async def events(request: Connection, said: AsyncIterator[str | Finished | Failed]) -> AsyncIterator[bytes]:
    """An answer as server-sent events. There is one at least: the component fails at a stream that says nothing."""
    silent = True
    async for item in said:
        if isinstance(item, str):
            silent = False
            yield data_event({"text": item})
        elif isinstance(item, Failed):
            yield data_event(error_body(Refusal(*failure(request, item.error))))
        elif silent:
            yield data_event({"text": ""})
