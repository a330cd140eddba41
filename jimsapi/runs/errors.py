"""What can go wrong with a run. `jimsapi/wire/errors.py` maps each to HTTP."""

from uuid import UUID

from jimsapi.threads.errors import DomainError, StoreUnavailable


class ContactForbidden(DomainError):
    """The caller is bound to one contact and named another."""

    def __init__(self) -> None:
        super().__init__("These credentials are for another contact_id")


class ScopeMissing(DomainError):
    """The caller's scopes do not cover what it asked for."""

    def __init__(self, scope: str) -> None:
        super().__init__(f"These credentials lack the scope {scope}")


class PipelineFailed(DomainError):
    """A pipeline raised, or sent what cannot be stored. The message is in the thread, its answer is not."""

    PREFIX = "Pipeline error: "

    def __init__(self, cause: BaseException) -> None:
        super().__init__(f"{self.PREFIX}{_text(cause)}")

    @classmethod
    def told(cls, text: str) -> "PipelineFailed":
        """The same, from its text as it was stored."""
        error = cls(Exception())
        error.args = (text,)
        return error


class RunBroken(DomainError):
    """A run failed by a fault of the server's or of a plugin's; the log says which."""

    def __init__(self) -> None:
        super().__init__("Internal Server Error")


class RunTimedOut(DomainError):
    """The pipeline took longer than a run may."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"The pipeline did not answer within {seconds:g} seconds")

    @classmethod
    def told(cls, text: str) -> "RunTimedOut":
        """The same, from its text as it was stored."""
        error = cls(0)
        error.args = (text,)
        return error


class QueueTimedOut(DomainError):
    """The run did not get its turn in time; its message did not enter the thread."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"Earlier messages of this thread took longer than {seconds:g} seconds; send this one again")


class TooManyRuns(DomainError):
    """The process has as many open runs as it may."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"The server works on {limit} messages already; try again later")


class ServerDraining(DomainError):
    """The server is shutting down and takes no new work."""

    def __init__(self) -> None:
        super().__init__("The server is shutting down; try again")


class RunCancelled(DomainError):
    """The run was cancelled while its caller waited."""

    def __init__(self) -> None:
        super().__init__("The run was cancelled")


class RunEnded(DomainError):
    """A run that is to be cancelled has ended."""

    def __init__(self, run_id: UUID, status: str) -> None:
        super().__init__(f"Run '{run_id}' has ended: it is {status}")


class ThreadBusy(DomainError):
    """The thread works on another message, and this one was not to wait for it."""

    def __init__(self, run_id: UUID | None) -> None:
        super().__init__("The thread is busy with an earlier message; send this one again later")
        self.run_id = run_id


class RunInterrupted(DomainError):
    """The run was cut off: its process shut down, or was taken for dead."""

    def __init__(self) -> None:
        super().__init__("The run was interrupted; try again")


def _text(cause: BaseException) -> str:
    """The text of an exception of somebody else's making: it may raise, or hold what no JSON can."""
    if isinstance(cause, StoreUnavailable):  # ours, which the context raised
        return StoreUnavailable.FOR_CALLERS
    try:
        return str(cause).encode("utf-8", "replace").decode()
    except Exception:
        return type(cause).__name__
