"""The lists of runs and of contacts, limited to those that the caller may see."""

import msgspec

from jimsapi.runs.admission import Admission
from jimsapi.runs.inbound import check_contact
from jimsapi.runs.keys import caller_of
from jimsapi.runs.service import RunService
from jimsapi.threads.errors import InputRefused
from jimsapi.threads.run import ContactPage, RunFilter, RunPage


class Lists:
    """Lists the runs and contacts that a caller may see.

    A caller that is bound to one contact sees only this one. If the server admits every caller without authentication,
    a list needs a contact or a thread, because nobody may list the conversations of all contacts.
    """

    def __init__(self, service: RunService) -> None:
        self._service = service

    async def runs(
        self, admission: Admission, limit: int, after: str | None, only: RunFilter, *, own: bool = False
    ) -> RunPage:
        """Return a page of runs, newest first: `limit` runs, after the cursor `after` if it is given.

        `own`: only those that the caller began.

        Raises `ContactForbidden`, `InputRefused` (no contact, or an invalid one), `ThreadNotFound` (of
        `only.thread_id`) or `InvalidCursor`.
        """
        if only.contact_id is not None or only.thread_id is None:
            _check(admission, only.contact_id, "a contact_id or a thread_id")
        if own:
            only = msgspec.structs.replace(only, caller=caller_of(admission))
        with self._service.outage.noted():
            return await self._service.store.runs(admission.identity.contact_id, limit, after, only)

    async def contacts(
        self, admission: Admission, limit: int, after: str | None, contact_id: str | None = None
    ) -> ContactPage:
        """Return a page of contacts, or only the one that is named.

        Raises `ContactForbidden`, `InputRefused` (no contact, or an invalid one) or `InvalidCursor`.
        """
        _check(admission, contact_id, "a contact_id")
        own = admission.identity.contact_id if contact_id is None else contact_id
        with self._service.outage.noted():
            return await self._service.store.contacts(own, limit, after)


def _check(admission: Admission, contact_id: str | None, needed: str) -> None:
    if contact_id is not None:
        check_contact(admission.identity, contact_id)
    elif admission.provider is None:
        message = f"This server admits every caller, so this list needs {needed}"
        raise InputRefused("contact_id", "missing", message, None)
