"""The queue of background runs in a stream of JetStream."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from jimsapi_nats import work
from jimsapi_nats.connection import NotConnected, servers_of
from jimsapi_nats.work import NotPut, WorkStream
from nats.js.api import DiscardPolicy, RetentionPolicy
from nats_server import WORK, NatsServer, rights_of_the_page

from jimsapi import Secret
from jimsapi.asgi.testing import TestClient
from jimsapi.plugins import OptionError, Settings, StartError
from jimsapi.threads import uuid7

pytestmark = pytest.mark.anyio


def queue(server: NatsServer, user: str = "ann") -> WorkStream:
    return WorkStream(servers_of(Secret(server.url.replace("ann:", f"{user}:"))), "jims.work", WORK)


class Doing:
    """Does runs for a test: notes them in `runs`, and returns what the test says.

    A run ends when the test sets `may_end`; with `at_once` it is set from the beginning.
    """

    def __init__(self, *, at_once: bool = False) -> None:
        self.runs: list[UUID] = []
        self.at_once = 0
        self.most_at_once = 0
        self.may_end = asyncio.Event()
        if at_once:
            self.may_end.set()
        self.result: float | None = None

    async def __call__(self, run_id: UUID) -> float | None:
        self.runs.append(run_id)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        await self.may_end.wait()
        self.at_once -= 1
        return self.result

    async def has(self, count: int) -> None:
        """Wait until so many runs have begun."""
        await until(lambda: len(self.runs) >= count)


async def until(holds: Callable[[], object]) -> None:
    async with asyncio.timeout(30):
        while not holds():
            await asyncio.sleep(0.01)


@asynccontextmanager
async def receiving(stream: WorkStream, doing: Doing, at_once: int = 1) -> AsyncIterator[None]:
    """Let a worker receive runs, and wait at the end until it has stopped."""
    task = asyncio.create_task(stream.receive(doing, at_once))
    yield
    stream.stop_receiving()
    await task


async def emptied(server: NatsServer) -> None:
    """Wait until the stream has no run."""
    await server.wait_for(server.queued, 0)


async def test_a_run_that_is_put_again_is_in_the_stream_once_until_it_is_done(server: NatsServer) -> None:
    await server.add_queue()
    runs, doing = [uuid7() for _ in range(200)], Doing()
    async with queue(server) as one, queue(server) as other:
        await one.put(runs)
        await other.put(runs)
        assert await server.queued() == 200
        async with receiving(other, doing, 1000):
            await doing.has(200)
            await one.put(runs)
            assert await server.queued() == 200, "those that a worker does are in it"
            doing.may_end.set()
            await emptied(server)
            await one.put(runs[:1])
            await doing.has(201)
            await emptied(server)
    assert sorted(doing.runs) == sorted([*runs, runs[0]])


async def test_a_worker_does_at_most_so_many_runs_at_once_and_leaves_the_others_in_the_stream(
    server: NatsServer,
) -> None:
    await server.add_queue()
    one_doing, other_doing = Doing(), Doing()
    async with queue(server) as one, queue(server) as other:
        await one.put([uuid7() for _ in range(5)])
        async with receiving(one, one_doing, 2):
            await one_doing.has(2)
            async with receiving(other, other_doing, 3):
                await other_doing.has(3)
                for doing in (one_doing, other_doing):
                    doing.may_end.set()
                await emptied(server)
    assert (one_doing.most_at_once, other_doing.most_at_once) == (2, 3)


async def test_a_run_of_a_worker_that_gives_no_sign_is_delivered_to_another_one(
    server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(work, "REDELIVER_AFTER", 1.0)
    await server.add_queue()
    run, lost, found = uuid7(), Doing(), Doing(at_once=True)
    async with queue(server) as dying, queue(server) as other:
        await dying.put([run])
        task = asyncio.create_task(dying.receive(lost, 1))
        await lost.has(1)
        task.cancel()
        async with receiving(other, found):
            await found.has(1)
            await emptied(server)
    assert lost.runs == found.runs == [run]


async def test_a_run_that_takes_long_is_not_delivered_to_another_worker(
    server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(work, "REDELIVER_AFTER", 1.5)
    monkeypatch.setattr(work, "PROGRESS_EVERY", 0.1)
    await server.add_queue()
    one_doing, other_doing = Doing(), Doing()
    async with queue(server) as one, queue(server) as other:
        await one.put([uuid7()])
        async with receiving(one, one_doing, 2):
            await one_doing.has(1)
            async with receiving(other, other_doing, 2):
                await asyncio.sleep(3.0)  # for the time in which nothing must happen
                for doing in (one_doing, other_doing):
                    doing.may_end.set()
                await emptied(server)
    assert len(one_doing.runs) == 1
    assert other_doing.runs == []


async def test_a_run_that_cannot_be_done_yet_is_delivered_again(
    server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(work, "REDELIVER_AFTER", 3600.0)
    await server.add_queue()
    doing = Doing(at_once=True)
    doing.result = 0.1
    async with queue(server) as stream:
        await stream.put([uuid7()])
        async with receiving(stream, doing):
            await doing.has(3)
            doing.result = None
            await emptied(server)
    assert len(set(doing.runs)) == 1


async def test_a_worker_that_stops_ends_its_runs_and_returns_what_it_has_not_begun(
    server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(work, "REDELIVER_AFTER", 3600.0)
    await server.add_queue()
    doing, next_doing = Doing(), Doing(at_once=True)
    doing.result = 0.0  # as a worker answers that drains
    async with queue(server) as stream, queue(server) as other:
        await stream.put([uuid7()])
        async with receiving(stream, doing, 5):
            await doing.has(1)
            stream.stop_receiving()
            await stream.put([uuid7()])
            doing.may_end.set()
        assert len(doing.runs) == 1
        assert await server.queued() == 2
        async with receiving(other, next_doing, 5):
            await emptied(server)
    assert len(next_doing.runs) == 2


async def test_a_worker_goes_on_after_a_restart_of_nats_and_after_the_loss_of_the_consumer(server: NatsServer) -> None:
    await server.add_queue()
    doing = Doing(at_once=True)
    async with queue(server) as stream, receiving(stream, doing, 5):
        await stream.put([uuid7()])
        await emptied(server)
        server.kill()
        await until(lambda: not stream._connection.is_open)
        with pytest.raises(NotConnected):
            await stream.put([uuid7()])
        await asyncio.to_thread(server.start)
        await until(lambda: stream._connection.is_open)
        await stream.put([uuid7()])
        await emptied(server)
        async with server.operator() as operator:
            await operator.jetstream().delete_consumer(WORK, work.CONSUMER)
        last = uuid7()
        await stream.put([last])
        await until(lambda: last in doing.runs)


async def test_a_message_that_is_not_a_run_is_removed(server: NatsServer, caplog: pytest.LogCaptureFixture) -> None:
    await server.add_queue()
    doing = Doing()
    async with server.operator() as operator:
        await operator.jetstream().publish("jims.work.x", b"hello")
    async with queue(server) as stream, receiving(stream, doing):
        await emptied(server)
    assert doing.runs == []
    assert "a message on jims.work.x is not a run" in caplog.text


async def test_a_full_stream_is_an_error_and_not_a_run_that_it_has_already(server: NatsServer) -> None:
    await server.add_queue(max_msgs=1)
    async with queue(server) as stream:
        await stream.put([uuid7()])
        with pytest.raises(Exception, match="maximum messages exceeded"):
            await stream.put([uuid7()])


async def test_a_stream_that_is_gone_is_an_error(server: NatsServer) -> None:
    await server.add_queue()
    async with queue(server) as stream:
        async with server.operator() as operator:
            await operator.jetstream().delete_stream(WORK)
        with pytest.raises(NotPut, match=r"no stream of the NATS server receives the subject jims\.work\.\*"):
            await stream.put([uuid7()])


async def test_a_server_announces_a_run_at_once(
    server: NatsServer, url: str, jimsapi_client: Callable[..., TestClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jimsapi.runs.housekeeping.UNCLAIMED_AFTER", timedelta(days=1))
    await server.add_queue()
    async with jimsapi_client(nats_url=server.url, nats_work=WORK, store=url) as client:
        answer = await client.post("/api/v1/runs", json={"contact_id": "ann", "message": "hi"})
        assert answer.status_code == 202
        await server.wait_for(server.queued, 1)


async def test_the_rights_that_the_page_names_are_enough_for_servers_and_workers(server: NatsServer) -> None:
    await server.add_queue()
    server.kill()
    server.start(rights=rights_of_the_page("jims.work"))
    async with queue(server, "bob") as stream:
        await stream.put([uuid7()])
        async with receiving(stream, Doing(at_once=True)):
            await emptied(server)


async def test_a_worker_that_cannot_ask_the_stream_says_so(
    server: NatsServer, caplog: pytest.LogCaptureFixture
) -> None:
    await server.add_queue()
    server.kill()
    server.start(rights='publish: ["$JS.API.STREAM.INFO.WORK"], subscribe: ["_INBOX.>"]')
    async with queue(server, "bob") as stream, receiving(stream, Doing()):
        await until(lambda: "the worker gets no runs now: TimeoutError" in caplog.text)


@pytest.mark.parametrize(
    "unfit",
    [
        {"retention": RetentionPolicy.LIMITS},
        {"discard_new_per_subject": False},
        {"discard": DiscardPolicy.OLD, "discard_new_per_subject": False},
        {"max_msgs_per_subject": 2},
    ],
    ids=["keeps done runs", "replaces", "drops old runs", "keeps two"],
)
async def test_a_stream_that_is_no_queue_of_runs_stops_the_start(server: NatsServer, unfit: dict[str, Any]) -> None:
    await server.add_queue(**unfit)
    with pytest.raises(StartError, match=r"--nats-work: the stream WORK is not a queue .* nats stream add WORK --subj"):
        async with queue(server):
            pass


async def test_a_stream_that_is_missing_or_has_other_subjects_stops_the_start(server: NatsServer) -> None:
    with pytest.raises(StartError, match="--nats-work: the NATS server has no stream WORK; create it"):
        async with queue(server):
            pass
    await server.add_queue()
    with pytest.raises(StartError, match=r"keeps one message for each run on shop\.work\.\*"):
        async with WorkStream(servers_of(Secret(server.url)), "shop.work", WORK):
            pass


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"nats_work": "WORK"}, "--nats-work needs --nats-url"),
        ({"nats_url": "nats://a", "nats_work": "a b"}, "--nats-work is not the name of a stream"),
    ],
)
async def test_faulty_options_are_refused(
    jimsapi_settings: Callable[..., Settings], given: dict[str, str], message: str
) -> None:
    with pytest.raises(OptionError, match=message):
        jimsapi_settings(**given)
