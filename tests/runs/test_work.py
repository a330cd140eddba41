"""Background runs that workers do: what a service refuses. The tests of jimsapi-postgres have workers."""

import logging
from collections.abc import Sequence
from uuid import UUID

import pytest

from jimsapi.runs.work import DoRun, Workers
from jimsapi.stores.memory import MemoryStore
from jimsapi.threads.errors import StoreUnusable
from jimsapi.threads.ids import uuid7
from tests.apps.scripted import Scripted
from tests.runs.serving import serving

pytestmark = pytest.mark.anyio


class Queue:
    """A queue that forgets what it receives, or fails."""

    name = "forgetful"

    def __init__(self) -> None:
        self.broken = False

    async def put(self, run_ids: Sequence[UUID]) -> None:
        if self.broken:
            raise SystemExit

    async def receive(self, do: DoRun, at_once: int) -> None: ...

    def stop_receiving(self) -> None: ...


async def test_a_store_of_one_process_cannot_leave_runs_to_workers() -> None:
    async with serving(Scripted(), MemoryStore(), adopts=False) as service:
        service.use_workers(Queue())
        with pytest.raises(StoreUnusable, match=r"cannot leave runs to workers.*--store postgresql://"):
            await service.adopt()


async def test_a_second_queue_is_refused() -> None:
    async with serving(Scripted(), adopts=False) as service:
        service.use_workers(Queue())
        with pytest.raises(ValueError, match="two plugins have work queues: forgetful and forgetful"):
            service.use_workers(Queue())


async def test_a_service_without_a_queue_is_no_worker() -> None:
    async with serving(Scripted()) as service:
        assert service.worker() is None


async def test_a_queue_that_fails_for_long_is_logged_once_and_its_return_too(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    queue = Queue()
    workers = Workers(queue)
    for broken in (True, True, False, False):
        queue.broken = broken
        await workers.announce([uuid7()])
    assert [record.message for record in caplog.records] == [
        "work queue forgetful does not receive runs, which wait in the store until it does: SystemExit: ",
        "work queue forgetful receives runs again",
    ]
