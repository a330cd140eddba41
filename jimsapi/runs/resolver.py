"""Resolvers, which select the thread of a message."""

from collections.abc import Iterable, Sequence
from typing import Protocol

from jimsapi.runs.inbound import Inbound
from jimsapi.runs.plugin_code import PLUGIN_EXITS, own_task_is_cancelled
from jimsapi.threads.errors import ThreadNotFound
from jimsapi.threads.run import Selector


class ThreadResolver(Protocol):
    """Selects the thread of an inbound message. `resolve` returns None to leave the message to the next resolver."""

    name: str

    async def resolve(self, inbound: Inbound) -> Sequence[Selector] | None: ...


async def resolve(resolvers: Iterable[ThreadResolver], inbound: Inbound) -> tuple[Selector, ...]:
    """Return the selectors of the first resolver that does not return None. Raises `ThreadNotFound` if all do."""
    for resolver in resolvers:
        try:
            selectors = await resolver.resolve(inbound)
        except PLUGIN_EXITS as error:
            if own_task_is_cancelled():
                raise
            raise RuntimeError(f"resolver {resolver!r} raised {type(error).__name__}") from error
        if selectors is not None:
            return tuple(selectors)
    raise ThreadNotFound(inbound.thread_id)
