"""An observer in many versions: one that keeps the contract, and some that each break one thing.

The tests install this module as the distribution `acme-tally`; the option `--tally-version` chooses.
"""

import asyncio
import logging
import socket
import time
from collections import Counter
from typing import Any, Self

from jimsapi import Options, Secret, hookimpl, option
from jimsapi.plugins import AdmissionRecord, CommitRecord, RequestRecord, RunRecord

logger = logging.getLogger("acme_tally")


class TallyOptions(Options, prefix="tally"):
    token: Secret | None = option(help="What the place asks for.")
    version: str = option("Sound", help="The class that is built.")


class Sound:
    """Counts."""

    def __init__(self, token: Secret | None) -> None:
        self.token = token
        self.counts: Counter[str] = Counter()

    def on_request(self, record: RequestRecord) -> None:
        self.counts[record.route] += 1

    def on_admission(self, record: AdmissionRecord) -> None:
        self.counts[record.provider] += 1

    def on_run(self, record: RunRecord) -> None:
        self.counts[record.status] += 1

    def on_commit(self, record: CommitRecord) -> None:
        self.counts["commit"] += record.operations


class AlwaysThere(Sound):
    """It is built whether it is configured or not."""


class KnowsItsRoutes(Sound):
    def on_request(self, record: RequestRecord) -> None:
        if record.route == "unmatched":
            raise KeyError(record.route)


class NeedsAThread(Sound):
    def on_run(self, record: RunRecord) -> None:
        assert record.thread_id is not None


class ChangesFields(Sound):
    def on_request(self, record: RequestRecord) -> None:
        record.fields.pop("contact_id", None)  # type: ignore[attr-defined] # it is a dict


class Sleeps(Sound):
    def on_commit(self, record: CommitRecord) -> None:
        time.sleep(0)


class SendsOverTcp(Sound):
    def __init__(self, token: Secret | None) -> None:
        super().__init__(token)
        self.mine, self.theirs = socket.socketpair()

    def on_run(self, record: RunRecord) -> None:
        self.mine.sendall(b"1")


class IsAsync(Sound):
    async def on_run(self, record: RunRecord) -> None:  # type: ignore[override] # that is the fault
        self.counts[record.status] += 1


class LogsTheToken(Sound):
    def on_admission(self, record: AdmissionRecord) -> None:
        logger.debug("the token is %s", self.token.reveal() if self.token else None)


class LeavesATask(Sound):
    def __init__(self, token: Secret | None) -> None:
        super().__init__(token)
        self.task = asyncio.ensure_future(asyncio.Event().wait())


class StartsOnce(Sound):
    started = False

    async def __aenter__(self) -> Self:
        assert not StartsOnce.started, "it runs already"
        StartsOnce.started = True
        return self

    async def __aexit__(self, *_: object) -> None:
        pass


@hookimpl
def jimsapi_options() -> type[Options]:
    return TallyOptions


@hookimpl
def jimsapi_observer(settings: Any) -> Any:
    options = settings.get(TallyOptions)
    version = globals()[options.version]
    return version(options.token) if options.token or version is AlwaysThere else None
