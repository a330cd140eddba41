"""The runs that calls begin: for a message, and for answers to the questions of a run."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from jimsapi.asgi import Request
from jimsapi.runs import LiveRun, RunService
from jimsapi.threads import ById, New, Selector, StoredRun, TraceContext
from jimsapi.wire import Turn, begin_turn
from jimsapi_mcp.names import thread_of
from jimsapi_mcp.people import People


class Place(msgspec.Struct, frozen=True):
    """Where a message goes: the thread that `selectors` find, of the contact `contact`."""

    selectors: Sequence[Selector]
    contact: str
    name: str | None = None


class Turns:
    """Begins runs."""

    def __init__(self, service: RunService, people: People) -> None:
        self._service = service
        self._people = people

    async def begin(
        self,
        request: Request,
        turn: Turn,
        place: Place,
        *,
        watched: bool = False,
        background: bool = False,
        stops: bool = False,
    ) -> LiveRun:
        """Begin the run of a message. `stops`: it does not go on without its client. Raises as `begin_turn` does."""
        return await begin_turn(
            request,
            self._service,
            self._people.names,
            turn,
            watched=watched,
            background=background,
            selectors=place.selectors,
            contact=place.contact,
            stops=stops,
        )

    async def answer(
        self, request: Request, run: StoredRun, answers: Mapping[str, Any], trace_context: TraceContext | None = None
    ) -> LiveRun:
        """Begin the run of answers to questions of a run, in the background. Raises as `begin_turn` does."""
        turn = Turn("", answers=dict(answers), trace_context=trace_context)
        return await self.begin(request, turn, self.place_of(request, run), background=True)

    def place_of(self, request: Request, run: StoredRun) -> Place:
        """Return the place of answers to questions of a run."""
        return Place((ById(run.thread_id),), self._people.contact_of(request, run.contact_id))

    async def place(self, request: Request, thread: str | None) -> Place:
        """Return the place of a message: the thread with this identifier, or that of this name, or a new one.

        Raises `ThreadNotFound` for a thread of somebody else.
        """
        thread_id = None if thread is None else thread_of(thread)
        if thread_id is not None:
            found = await self._people.thread(request, thread_id)
            return Place((ById(thread_id),), self._people.contact_of(request, found.contact_id))
        contact = self._people.contact(request, thread)
        named = self._people.names.selectors(request, Turn("", thread=thread), contact)
        return Place((New(),) if named is None else named, contact, thread)
