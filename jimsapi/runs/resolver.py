"""Resolvers, which select the thread of a message."""

import inspect
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Protocol

from jimsapi.runs.admission import Admission
from jimsapi.runs.inbound import Inbound
from jimsapi.runs.plugin_code import PLUGIN_EXITS, own_task_is_cancelled
from jimsapi.threads.errors import ThreadNotFound
from jimsapi.threads.identity import Identity
from jimsapi.threads.run import Selector, ThreadRecord
from jimsapi.threads.store import ThreadStore

_LIST_TYPES = (list, tuple)


class ThreadResolver(Protocol):
    """Selects the thread of an inbound message.

    `async resolve(inbound)` returns selectors, or None to leave the message to the next resolver. It may have a second
    positional parameter without a default, `async resolve(inbound, context)`: jimsapi then passes a `ResolverContext`.
    A resolver may have an attribute `headers` with the names of the request headers that it reads from that context.
    """

    name: str

    async def resolve(self, *arguments: Any, **named: Any) -> Sequence[Selector] | None: ...


class ResolverContext:
    """What a resolver can know besides the message.

    - `identity`: the identity of the caller.
    - `headers`: the headers of the request, or of the WebSocket's handshake, that the resolver declares, by lower-case
      name. The values of a header that the client repeats are joined by commas (RFC 9110, section 5.3). It is empty if
      the message did not come through a private route.
    """

    __slots__ = ("_contact_id", "_store", "headers", "identity")

    def __init__(self, identity: Identity, headers: Mapping[str, str], store: ThreadStore, contact_id: str) -> None:
        self.identity = identity
        self.headers = headers
        self._store = store
        self._contact_id = contact_id

    async def last_thread(self) -> ThreadRecord | None:
        """Return the newest thread of the message's contact, which `Latest()` selects; None if there is none.

        A resolver may use its `thread_config`, `created_at` or `thread_id` to choose selectors. By the time when the
        message is stored, another message may have created a newer thread. Raises `StoreUnavailable`.
        """
        page = await self._store.threads(self._contact_id, 1, None)
        return page.threads[0] if page.threads else None


class Resolvers:
    """The resolvers of a server, in calling order."""

    def __init__(self, resolvers: Iterable[ThreadResolver]) -> None:
        self._resolvers = [(one, declared_headers(one) if takes_context(one) else None) for one in resolvers]

    async def resolve(self, inbound: Inbound, admission: Admission, store: ThreadStore) -> tuple[Selector, ...]:
        """Return the selectors of the first resolver that does not return None. Raises `ThreadNotFound` if all do."""
        for resolver, declared in self._resolvers:
            try:
                if declared is None:
                    selectors = await resolver.resolve(inbound)
                else:
                    headers = {name: text for name, text in admission.headers.items() if name in declared}
                    context = ResolverContext(admission.identity, headers, store, inbound.contact_id)
                    selectors = await resolver.resolve(inbound, context)
            except PLUGIN_EXITS as error:
                if own_task_is_cancelled():
                    raise
                raise RuntimeError(f"resolver {resolver!r} raised {type(error).__name__}") from error
            if selectors is None:
                continue
            if not isinstance(selectors, _LIST_TYPES):
                raise RuntimeError(
                    f"resolver {resolver!r} returned {type(selectors).__name__}, not a list of selectors"
                )
            return tuple(selectors)
        raise ThreadNotFound(inbound.thread_id)


def takes_context(resolver: object) -> bool:
    """Return whether the method `resolve` of a resolver has a second parameter, without a default, for the context."""
    try:
        parameters = list(inspect.signature(resolver.resolve).parameters.values())  # type: ignore[attr-defined]
    except (AttributeError, TypeError, ValueError):
        return False
    if len(parameters) < 2:
        return False
    second = parameters[1]
    return second.default is second.empty and second.kind in (second.POSITIONAL_ONLY, second.POSITIONAL_OR_KEYWORD)


def declared_headers(resolver: object) -> frozenset[str]:
    """Return the lower-case names of the headers that a resolver declares."""
    names: Collection[str] = getattr(resolver, "headers", ())
    return frozenset(name.lower() for name in names)
