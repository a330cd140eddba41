"""The errors of runs. `jimsapi/wire/errors.py` maps each to an HTTP status."""

from uuid import UUID

from jimsapi.threads.errors import DomainError, StoreUnavailable


class ContactForbidden(DomainError):
    """The caller is bound to one contact, and its request names another."""

    def __init__(self) -> None:
        super().__init__("These credentials are for another contact_id")


class ScopeMissing(DomainError):
    """The caller does not have the scope that its request needs."""

    def __init__(self, scope: str) -> None:
        super().__init__(f"These credentials lack the scope {scope}")
        self.scope = scope


class PipelineFailed(DomainError):
    """The pipeline raised, or sent an event that cannot be stored. The message is in the thread without an answer."""

    PREFIX = "Pipeline error: "

    def __init__(self, cause: BaseException) -> None:
        super().__init__(f"{self.PREFIX}{exception_text(cause)}")

    @classmethod
    def with_text(cls, text: str) -> "PipelineFailed":
        """Return the error with this text, such as one from the store."""
        error = cls(Exception())
        error.args = (text,)
        return error


class RunBroken(DomainError):
    """The run failed because of an error in the server or a plugin. The log has the cause."""

    def __init__(self) -> None:
        super().__init__("Internal Server Error")


class RunTimedOut(DomainError):
    """The pipeline took longer than `run_timeout` seconds."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"The pipeline did not answer within {seconds:g} seconds")

    @classmethod
    def with_text(cls, text: str) -> "RunTimedOut":
        """Return the error with this text, such as one from the store."""
        error = cls(0)
        error.args = (text,)
        return error


class QueueTimedOut(DomainError):
    """The run waited too long for its turn. The message did not enter the thread."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"Earlier messages of this thread took longer than {seconds:g} seconds; send this one again")


class TooManyRuns(DomainError):
    """The process has `limit` open runs, which is the maximum."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"The server works on {limit} messages already; try again later")


class ServerDraining(DomainError):
    """The server is shutting down and accepts no new messages."""

    def __init__(self) -> None:
        super().__init__("The server is shutting down; try again")


class RunCancelled(DomainError):
    """The run was cancelled."""

    def __init__(self) -> None:
        super().__init__("The run was cancelled")


class RunEnded(DomainError):
    """The run cannot be cancelled, because it has ended."""

    def __init__(self, run_id: UUID, status: str) -> None:
        super().__init__(f"Run '{run_id}' has ended: it is {status}")


class ThreadBusy(DomainError):
    """The thread has another open run, and the server does not queue messages (`reject_busy`)."""

    def __init__(self, run_id: UUID | None) -> None:
        super().__init__("The thread is busy with an earlier message; send this one again later")
        self.run_id = run_id


class QuestionNotFound(DomainError):
    """The thread has no such question, or the caller may not answer it."""

    def __init__(self, question_id: UUID | str) -> None:
        super().__init__(f"Question '{question_id}' not found")


class QuestionClosed(DomainError):
    """The question cannot be answered any more. `reason` says why: answered, expired, or superseded."""

    def __init__(self, question_id: UUID | str, reason: str) -> None:
        super().__init__(f"Question '{question_id}' is closed: {reason}")


class RunInterrupted(DomainError):
    """The run was interrupted: its process shut down, or another process considered that process dead.

    The caller of a run that waited for its turn at the shutdown gets it, too; that run is stored as `cancelled`.
    """

    def __init__(self) -> None:
        super().__init__("The run was interrupted; try again")

    @classmethod
    def with_text(cls, text: str) -> "RunInterrupted":
        """Return the error with this text, such as one from the store."""
        error = cls()
        error.args = (text,)
        return error


def exception_text(cause: BaseException) -> str:
    """Return the text of an exception of the app. Its `str` may raise, or contain a lone surrogate."""
    if isinstance(cause, StoreUnavailable):  # the context raised it; its own text is for the log only
        return StoreUnavailable.FOR_CALLERS
    try:
        return str(cause).encode("utf-8", "replace").decode()
    except Exception:
        return type(cause).__name__
