"""Answers in the format of Deep Chat: pieces of a text, or an error."""

from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

from jimsapi.asgi import Connection
from jimsapi.wire import AgentItem, Failed, Finished, Refusal, data_event, failure


def error_body(refusal: Refusal) -> dict[str, Any]:
    """Return an error in the format of Deep Chat."""
    return {"error": refusal.text}


async def events(
    request: Connection, items: AsyncIterator[str | AgentItem | Finished | Failed]
) -> AsyncGenerator[bytes, None]:
    """Yield an answer as server-sent events. There is at least one, because the component fails without any."""
    empty = True
    async for item in items:
        if isinstance(item, str):
            empty = False
            yield data_event({"text": item})
        elif isinstance(item, Failed):
            yield data_event(error_body(Refusal(*failure(request, item.error))))
        elif isinstance(item, Finished) and empty:
            yield data_event({"text": ""})
