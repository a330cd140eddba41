"""Contexts: the conversations of A2A, which are threads.

The identifier of a context is that of its thread, or a name that the client has chosen. A name belongs to the caller
that has chosen it, and stays in the configuration of the thread, so that every answer has it.
"""

from collections.abc import Mapping, Sequence
from typing import Any, cast
from uuid import UUID

import msgspec
import orjson

from jimsapi.asgi import Request
from jimsapi.runs import THREADS, Admission, Lists, Runs, RunService, ThreadService
from jimsapi.threads import (
    ByExternalId,
    ById,
    New,
    RunFilter,
    RunNotFound,
    Selector,
    ThreadNotFound,
    ThreadQuery,
    ThreadRecord,
    derived_id,
)
from jimsapi.wire import ThreadNames, Turn
from jimsapi_a2a.errors import invalid

PROTOCOL = "a2a"
RUNS_READ = 20
"""How many of the caller's newest runs of a thread are read to find one."""


class Place(msgspec.Struct, frozen=True):
    """Where a message goes: to the thread that the selectors find or create. `contact` is None if it is to be found."""

    selectors: Sequence[Selector]
    contact: str | None


class Contexts:
    """Finds the thread of a context, and the name of the context of a thread."""

    def __init__(self, service: RunService, contact_header: str | None) -> None:
        self.names = ThreadNames(PROTOCOL, contact_header)
        self._service = service
        self._threads = ThreadService(service)
        self._lists = Lists(service)
        self._runs = Runs(service)

    async def place(self, request: Request, context_id: str | None, turn: Turn) -> Place:
        """Return the place of a message with this `contextId`; without one, a new thread.

        Raises `A2AError` if the identifier can only be one of this server and names no context of the caller: to begin
        another conversation with it would hide that the earlier one is gone.
        """
        if context_id is None:
            return Place((New(config=self._config(request)),), self.names.contact(request, turn))
        thread = await self._thread(request, context_id)
        if thread is not None:
            return Place((ById(thread.thread_id),), thread.contact_id)
        if _is_ours(context_id):
            text = f"There is no context {context_id!r}; leave contextId out to begin one"
            raise invalid("message.contextId", text)
        contact, external_id = self._named(request, context_id)
        config = {**self._config(request), "context_id": context_id}
        return Place((ByExternalId(external_id), New(config=config, external_id=external_id)), contact)

    async def find(self, request: Request, context_id: str) -> UUID | None:
        """Return the thread of a context; None if the caller has no such context."""
        thread = await self._thread(request, context_id)
        if thread is not None:
            return thread.thread_id
        contact, external_id = self._named(request, context_id)
        bound = _admission(request).identity.contact_id
        query = ThreadQuery(contact, (ByExternalId(external_id),), bound)
        try:
            return (await self._service.store.find_thread(query)).thread_id
        except ThreadNotFound:
            return None

    async def id_of(self, thread_id: UUID) -> str:
        """Return the identifier of the context of a thread. Raises `ThreadNotFound` if the thread was deleted."""
        return context_of(await self._service.store.thread(thread_id, None))

    def named_contact(self, request: Request) -> str | None:
        """Return the contact that a request for a list is about; None if it is about all."""
        identity = _admission(request).identity
        header = self.names.contact_header
        if identity.contact_id is not None:
            return identity.contact_id
        return None if header is None else request.headers.get(header) or None

    def check_contact(self, request: Request, contact_id: str | None) -> None:
        """Raise `ThreadNotFound` if the request names another contact than that of a thread."""
        header = self.names.contact_header
        named = request.headers.getlist(header) if header is not None else []
        if _admission(request).identity.contact_id is None and any(name and name != contact_id for name in named):
            raise ThreadNotFound

    async def _thread(self, request: Request, context_id: str) -> ThreadRecord | None:
        """Return the thread with this identifier; None if the caller may not continue it."""
        thread_id = _uuid(context_id)
        if thread_id is None:
            return None
        admission = _admission(request)
        try:
            thread = await self._threads.thread(admission.identity, thread_id)
            self.check_contact(request, thread.contact_id)
        except ThreadNotFound:
            return None
        if context_of(thread) != context_id:  # the context has another name
            return None
        return thread if await self._may_continue(admission, thread) else None

    async def _may_continue(self, admission: Admission, thread: ThreadRecord) -> bool:
        """Return whether a caller that sees a thread has part in it: it began it or wrote in it, or may read all."""
        identity = admission.identity
        if identity.contact_id is not None or identity.may(THREADS):
            return True
        if _config_of(thread).get("caller") == _caller(admission):
            return True
        only = RunFilter(thread_id=thread.thread_id)
        page = await self._lists.runs(admission, RUNS_READ, None, only, own=True)
        for listed in page.runs:
            try:
                await self._runs.run(admission, listed.run_id)
            except RunNotFound:
                continue
            return True
        return False

    def _named(self, request: Request, context_id: str) -> tuple[str, str]:
        """Return the contact and the external identifier of a context with a name that the client has chosen.

        Without a contact of the caller's, the contact is one of the context's own, which no other caller can name.
        """
        admission = _admission(request)
        own = derived_id("context", admission.provider or "", admission.identity.subject, context_id)
        contact = self.names.contact(request, Turn("", thread=f"{PROTOCOL}:{own}"))
        selectors = self.names.selectors(request, Turn("", thread=context_id), contact) or ()
        for selector in selectors:
            if isinstance(selector, ByExternalId):
                return contact, selector.external_id
        raise LookupError("the context has no name")

    def _config(self, request: Request) -> dict[str, Any]:
        return {"interface": PROTOCOL, "caller": _caller(_admission(request))}


def context_of(thread: ThreadRecord) -> str:
    """Return the identifier of the context of a thread."""
    config = _config_of(thread)
    name = config.get("context_id") if config.get("interface") == PROTOCOL else None
    return name if isinstance(name, str) else str(thread.thread_id)


def _config_of(thread: ThreadRecord) -> Mapping[str, Any]:
    try:
        config = orjson.loads(thread.thread_config)
    except orjson.JSONDecodeError:  # another JIMS program has written it
        return {}
    return config if isinstance(config, dict) else {}


def _caller(admission: Admission) -> str:
    """Return the mark of a caller in the configuration of the threads that it begins."""
    return derived_id("a2a-caller", admission.provider or "", admission.identity.subject).hex


def _uuid(text: str) -> UUID | None:
    """Return the UUID that a text is in the usual form; None for other texts."""
    try:
        identifier = UUID(text)
    except ValueError:
        return None
    return identifier if str(identifier) == text else None


def _is_ours(context_id: str) -> bool:
    """Return whether this server may have made an identifier: a UUID of version 7 or 8 with the last digit f."""
    identifier = _uuid(context_id)
    return identifier is not None and identifier.version in (7, 8) and context_id.endswith("f")


def _admission(request: Request) -> Admission:
    return cast(Admission, request.admission)
