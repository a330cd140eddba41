"""What can go wrong with threads and runs, in the words of the domain. `jimsapi/wire/errors.py` maps each to HTTP."""

from collections.abc import Sequence
from uuid import UUID


class DomainError(Exception):
    """Base of everything that a store or the run service refuses or fails at."""


class ThreadNotFound(DomainError):
    """The thread does not exist, or belongs to a contact that the caller may not act for."""

    def __init__(self, thread_id: UUID | None = None) -> None:
        super().__init__("Thread not found" if thread_id is None else f"Thread '{thread_id}' not found")
        self.thread_id = thread_id


class RunNotFound(DomainError):
    """There is no such run, or it is not one that the caller may know of."""

    def __init__(self, run_id: UUID) -> None:
        super().__init__(f"Run not found: {run_id}")
        self.run_id = run_id


class KeyUsed(DomainError):
    """The idempotency key came before, with the same body: `run_id` is the run that answers it. Nothing was stored."""

    def __init__(self, run_id: UUID) -> None:
        super().__init__("an earlier run has this key")
        self.run_id = run_id


class KeyMismatch(DomainError):
    """The idempotency key came before, with another body."""

    def __init__(self) -> None:
        super().__init__("this idempotency key was used for another request; use a new key for each")


class InputRefused(DomainError):
    """What the caller sent cannot be stored on every store, so no store takes it.

    `field` is the name of the faulty field, `kind` a stable identifier of the fault, `value` what was sent.
    """

    def __init__(self, field: str, kind: str, message: str, value: object) -> None:
        super().__init__(f"{field}: {message}")
        self.field = field
        self.kind = kind
        self.message = message
        self.value = value


class InvalidCursor(DomainError):
    """A page's cursor was not made by this store."""

    def __init__(self) -> None:
        super().__init__("The cursor is not one that this server handed out; start again without it")


class UnstorableEvent(DomainError):
    """A pipeline sent an event that cannot be stored."""

    def __init__(self, event_type: str, reason: str) -> None:
        super().__init__(f"event '{event_type}' cannot be stored: {reason}")
        self.event_type = event_type


class QueueFull(DomainError):
    """As many runs as allowed wait in this thread already. `open_run` is the oldest open one, if the store tells."""

    def __init__(self, limit: int, open_run: UUID | None = None) -> None:
        super().__init__(f"{limit} messages wait in this thread already; send this one again later")
        self.open_run = open_run


class RunClosed(DomainError):
    """The run has ended (time limit, cancellation, shutdown): its context takes nothing more."""

    def __init__(self, message: str = "the run is open no more") -> None:
        super().__init__(message)


class StoreUnavailable(DomainError):
    """The store could not do its work now. What it was asked may be asked again.

    The message is for the log; it may name files and hosts. Callers read `FOR_CALLERS`. `reason` is for everybody,
    `/readyz` shows it: a few words such as "disk full", without names of files, hosts or users; empty if the cause has
    no name.
    """

    FOR_CALLERS = "The store is not available; try again later"

    def __init__(self, message: str = "", reason: str = "") -> None:
        super().__init__(message, reason)  # both are `args`, so that a copy is `StoreUnavailable(*error.args)`
        self.reason = reason

    def __str__(self) -> str:
        return str(self.args[0])


class StoreUnusable(DomainError):
    """The store cannot be opened at all; the message says why and what to do. Stops the start."""


class IdentifierTaken(DomainError):
    """Events with these identifiers are in the thread already."""

    def __init__(self, event_ids: Sequence[UUID]) -> None:
        super().__init__(f"already stored in this thread: {', '.join(map(str, event_ids))}")
        self.event_ids = frozenset(event_ids)
