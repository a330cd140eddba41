"""Whose threads and runs a request may name, and whose the threads are that it begins."""

from typing import cast
from uuid import UUID

from jimsapi.asgi import Request
from jimsapi.runs import THREADS, Admission, Runs, RunService, ThreadService
from jimsapi.threads import RunNotFound, StoredRun, ThreadNotFound, ThreadRecord, derived_id, uuid7
from jimsapi.wire import ThreadNames, Turn, idempotency_key

OWN = "mcp:"
"""The beginning of contacts that the server makes for callers who name none."""


class People:
    """Finds the contact of a request, and the threads and runs that its caller may name.

    The contact is that of the caller's identity; else the value of the configured header; else one of the caller's own.
    If nobody has to sign in, each thread has a contact of its own, because the callers cannot be distinguished.
    """

    def __init__(self, service: RunService, contact_header: str | None) -> None:
        self.names = ThreadNames("mcp", contact_header)
        self._runs = Runs(service)
        self._threads = ThreadService(service)

    def contact(self, request: Request, thread: str | None = None) -> str:
        """Return the contact of a new thread, which the caller names `thread`.

        Raises `HTTPError` 400 if the header of contacts is there twice.
        """
        return self.names.contact(request, Turn("", thread=thread, user=self._own(request, thread)))

    def listed(self, request: Request) -> str | None:
        """Return the contact whose threads the caller may list; None if it has none. Raises as `contact` does."""
        contact = self.contact(request)
        is_one_of_many = contact.startswith(OWN) and admission_of(request).provider is None
        return None if is_one_of_many else contact

    def contact_of(self, request: Request, contact_id: str | None) -> str:
        """Return the contact for whom the caller sends a message to a thread of the contact `contact_id`."""
        bound_to = admission_of(request).identity.contact_id
        return bound_to if bound_to is not None else contact_id if contact_id is not None else self.contact(request)

    async def thread(self, request: Request, thread_id: UUID) -> ThreadRecord:
        """Return a thread. Raises `ThreadNotFound`, also if the caller may not name it."""
        thread = await self._threads.thread(admission_of(request).identity, thread_id)
        if not self.may_name(request, thread.contact_id):
            raise ThreadNotFound(thread_id)
        return thread

    def may_read(self, request: Request, contact_id: str | None) -> bool:
        """Return whether a caller may read the threads of a contact, as far as it may name them.

        That needs the scope `threads`, as in the chat API. The threads of the contact that the server has made for the
        caller have only its own calls, which it may see with the scope `chat`.
        """
        admission = admission_of(request)
        if admission.identity.may(THREADS):
            return True
        return admission.identity.contact_id is None and contact_id == self._own(request, None)

    async def run(self, request: Request, run_id: UUID) -> StoredRun:
        """Return a run. Raises `RunNotFound`, also if the caller may not name it."""
        run = await self._runs.run(admission_of(request), run_id)
        if not self.may_name(request, run.contact_id):
            raise RunNotFound(run_id)
        return run

    async def cancel(self, request: Request, run_id: UUID) -> None:
        """Cancel a run. Raises as `run` does, and `RunEnded`."""
        await self.run(request, run_id)
        await self._runs.cancel(admission_of(request), run_id)

    def may_name(self, request: Request, contact_id: str | None) -> bool:
        """Return whether a caller may name what belongs to a contact.

        The store has checked callers that are bound to a contact. The host names the contact by a header: the same
        caller then speaks for many people, and each request may name only what belongs to its own.
        """
        identity = admission_of(request).identity
        if identity.contact_id is not None:
            return True
        if self.names.contact_header is None and identity.may(THREADS):
            return True
        contact = self.contact(request)
        if contact == contact_id:
            return True
        is_unnamed = contact.startswith(OWN) and admission_of(request).provider is None
        return is_unnamed and contact_id is not None and contact_id.startswith(OWN)

    def _own(self, request: Request, thread: str | None) -> str:
        admission = admission_of(request)
        if admission.provider is not None:
            return f"{OWN}{derived_id('mcp caller', admission.provider, admission.identity.subject)}"
        if thread is not None:
            return f"{OWN}{derived_id('mcp thread', thread)}"
        key = idempotency_key(request)  # a request that is repeated has the same contact, or it would run twice
        return f"{OWN}{uuid7() if key is None else derived_id('mcp request', key)}"


def admission_of(request: Request) -> Admission:
    """Return the admission of the caller."""
    return cast(Admission, request.admission)
