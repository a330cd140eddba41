"""The errors of threads, events and stores. `jimsapi/wire/errors.py` maps each to an HTTP status."""

from collections.abc import Sequence
from uuid import UUID


class DomainError(Exception):
    """Base class of the errors that a store or the run service raises."""


class ThreadNotFound(DomainError):
    """The thread does not exist, or belongs to a contact that the caller may not act for."""

    def __init__(self, thread_id: UUID | None = None) -> None:
        super().__init__("Thread not found" if thread_id is None else f"Thread '{thread_id}' not found")
        self.thread_id = thread_id


class EventNotFound(DomainError):
    """The thread does not have the event."""

    def __init__(self, event_id: UUID | None = None) -> None:
        super().__init__("The thread has no such events" if event_id is None else f"Event '{event_id}' not found")
        self.event_id = event_id


class RunNotFound(DomainError):
    """The run does not exist, or the caller may not see it."""

    def __init__(self, run_id: UUID) -> None:
        super().__init__(f"Run not found: {run_id}")
        self.run_id = run_id


class KeyUsed(DomainError):
    """An earlier request had the same idempotency key and body. The run `run_id` answers it. Nothing was stored."""

    def __init__(self, run_id: UUID) -> None:
        super().__init__("an earlier run has this key")
        self.run_id = run_id


class KeyMismatch(DomainError):
    """An earlier request had the same idempotency key and another body."""

    def __init__(self) -> None:
        super().__init__("this idempotency key was used for another request; use a new key for each")


class InputRefused(DomainError):
    """A field of a request is invalid, for example because not every store could store it.

    `field` is the name of the field, `kind` a stable identifier of the fault, `value` the value that was sent.
    """

    def __init__(self, field: str, kind: str, message: str, value: object) -> None:
        super().__init__(f"{field}: {message}")
        self.field = field
        self.kind = kind
        self.message = message
        self.value = value


class InvalidCursor(DomainError):
    """The store did not make this cursor of a page."""

    def __init__(self) -> None:
        super().__init__("The cursor is not one that this server handed out; start again without it")


class UnstorableEvent(DomainError):
    """A pipeline sent an event that cannot be stored."""

    def __init__(self, event_type: str, reason: str) -> None:
        super().__init__(f"event '{event_type}' cannot be stored: {reason}")
        self.event_type = event_type


class QueueFull(DomainError):
    """The thread already has `limit` waiting runs. `open_run` is its oldest open run, if the store reports it."""

    def __init__(self, limit: int, open_run: UUID | None = None) -> None:
        super().__init__(f"{limit} messages wait in this thread already; send this one again later")
        self.open_run = open_run


class RunClosed(DomainError):
    """The run has ended (time limit, cancellation, shutdown), so its context accepts no more events."""

    def __init__(self, message: str = "the run is no longer open") -> None:
        super().__init__(message)


class StoreUnavailable(DomainError):
    """The store cannot do the operation now. The operation may be retried.

    The message is for the log and may name files and hosts. Callers read `FOR_CALLERS`. `reason` is public; `/readyz`
    shows it. It has a few words such as "disk full", without names of files, hosts or users. It is empty if the cause
    has no name.
    """

    FOR_CALLERS = "The store is not available; try again later"

    def __init__(self, message: str = "", reason: str = "") -> None:
        super().__init__(message, reason)  # both, so that `StoreUnavailable(*error.args)` is a copy
        self.reason = reason

    def __str__(self) -> str:
        return str(self.args[0])


class StoreUnusable(DomainError):
    """The store cannot be opened, so the server does not start. The message says why and what to do."""


class StoreLacks(DomainError):
    """The store cannot do this at all, for example search if Python's SQLite has no full-text search.

    `store` is the kind of the store, such as the name of its class, and `what` the method or the part that it lacks.
    """

    def __init__(self, store: str, what: str) -> None:
        super().__init__(f"The store {store} does not have {what}; use another store")
        self.store = store
        self.what = what


class IdentifierTaken(DomainError):
    """The thread already has events with these identifiers."""

    def __init__(self, event_ids: Sequence[UUID]) -> None:
        super().__init__(f"already stored in this thread: {', '.join(map(str, event_ids))}")
        self.event_ids = frozenset(event_ids)


class StoredFileNotFound(DomainError):
    """The file does not exist, or belongs to a contact that the caller may not act for."""

    def __init__(self) -> None:
        super().__init__("File not found")


class FileQuotaExceeded(DomainError):
    """The files of the contact would have more than `quota` bytes together."""

    def __init__(self, quota: int) -> None:
        super().__init__(f"The files of this contact may have {quota} bytes together; delete some of them first")
        self.quota = quota


class ContactDeleted(DomainError):
    """The contact was deleted while a file of it was stored. Nothing of the file remains."""

    def __init__(self) -> None:
        super().__init__("The contact was deleted while its file was stored")
