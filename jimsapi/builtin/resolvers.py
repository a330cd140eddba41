"""The last resolver. It selects the thread that the caller named, else the contact's newest, else a new one."""

from jimsapi.plugins import hookimpl
from jimsapi.runs import Inbound
from jimsapi.threads import ById, Latest, New, Selector

_LATEST_OR_NEW: tuple[Selector, ...] = (Latest(), New())


class DefaultResolver:
    """Returns selectors for every message."""

    name = "default"

    async def resolve(self, inbound: Inbound) -> tuple[Selector, ...]:
        return _LATEST_OR_NEW if inbound.thread_id is None else (ById(inbound.thread_id),)


@hookimpl
def jimsapi_thread_resolver() -> DefaultResolver:
    return DefaultResolver()
