"""What callers read of a pipeline's exception, in every protocol, and from a stored run."""

from collections.abc import Callable
from uuid import UUID

import msgspec

from jimsapi.runs.errors import PipelineFailed
from jimsapi.runs.result import failure_of
from jimsapi.threads.run import FailureKind, StoredRun


def _as_it_is(text: str) -> str:
    return text


class Disclosure(msgspec.Struct, frozen=True):
    """Makes the text of a pipeline's failure once, before it is stored, streamed or sent.

    With `hide` the text is the run's identifier instead of the exception. The log has the exception with its traceback
    under the same identifier. `redact` removes secrets from a text.
    """

    hide: bool = False
    redact: Callable[[str], str] = _as_it_is

    def failure(self, run_id: UUID, cause: BaseException) -> PipelineFailed:
        """The error that the caller of a run gets. Its text is also what the store keeps."""
        return PipelineFailed.told(self._text(run_id, str(PipelineFailed(cause))))

    def stored(self, run: StoredRun) -> StoredRun:
        """A run as its reader may see it: a process with other options may have stored its error."""
        if run.error is None or failure_of(run) is not FailureKind.PIPELINE:
            return run
        return msgspec.structs.replace(run, error=self._text(run.run_id, run.error))

    def _text(self, run_id: UUID, text: str) -> str:
        return f"{PipelineFailed.PREFIX}reference {run_id}" if self.hide else self.redact(text)
