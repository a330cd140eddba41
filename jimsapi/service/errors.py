"""What can go wrong with a run. `jimsapi/api/errors.py` maps each to HTTP."""

from jimsapi.threads.errors import DomainError


class ContactForbidden(DomainError):
    """The caller is bound to one contact and named another."""

    def __init__(self) -> None:
        super().__init__("These credentials are for another contact_id")


class PipelineFailed(DomainError):
    """A pipeline raised, or sent what cannot be stored. The message is in the thread, its answer is not."""

    def __init__(self, cause: BaseException) -> None:
        super().__init__(f"Pipeline error: {_text(cause)}")


class RunBroken(DomainError):
    """A run failed by a fault of the server's or of a plugin's; the log says which."""

    def __init__(self) -> None:
        super().__init__("Internal Server Error")


class RunTimedOut(DomainError):
    """The pipeline took longer than a run may."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"The pipeline did not answer within {seconds:g} seconds")


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


class RunInterrupted(DomainError):
    """The run was cut off: its process shut down, or was taken for dead."""

    def __init__(self) -> None:
        super().__init__("The run was interrupted; try again")


def _text(cause: BaseException) -> str:
    """The text of an exception of somebody else's making: it may raise, or hold what no JSON can."""
    try:
        return str(cause).encode("utf-8", "replace").decode()
    except Exception:
        return type(cause).__name__
