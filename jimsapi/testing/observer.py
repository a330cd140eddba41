"""The contract of an observer, as tests. An observer that passes them neither fails nor delays the server."""

import _socket
import copy
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from socket import SOCK_STREAM, socket
from typing import Any

from jimsapi.asgi.record import RequestRecord
from jimsapi.asgi.testing import TestClient
from jimsapi.plugins.hooks import BUILDS
from jimsapi.plugins.protocols import AdmissionRecord
from jimsapi.runs.live import PipelineTiming, RunRecord
from jimsapi.testing.contract import BuiltContract, CapturedOutput
from jimsapi.threads.context import ThreadContext
from jimsapi.threads.ids import uuid7
from jimsapi.threads.run import RunStatus
from jimsapi.threads.store import CommitRecord
from jimsapi.threads.usage import UsageTotal

METHODS = BUILDS["jimsapi_observer"].observer_methods
FAILING = "fail"
"""The message for which the pipeline of the server under test raises."""


class ObserverContract(BuiltContract):
    """Derive a class from this one in a test module, and declare the plugin and its options:

        class TestSlow(ObserverContract):
            distribution = "jimsapi-slow"
            settings = {"slow_seconds": 0}
            unconfigured = DoesNotApply("it always observes")

    pytest then runs every case against the installed plugin: with records of every kind, and behind a server. What the
    observer does with the records is for tests of your own.
    """

    hook = "jimsapi_observer"

    async def test_it_accepts_every_record(self) -> None:
        async with self.opened() as observer:
            for method, records in make_records().items():
                for record in records:
                    notify(observer, method, record)

    async def test_records_are_not_changed_for_the_other_observers(self) -> None:
        records = make_records()
        before = copy.deepcopy(records)
        async with self.opened() as observer:
            notify_all(observer, records)
        assert records == before

    async def test_it_does_not_block_the_server(self) -> None:
        seen: list[str] = []
        async with self.opened() as observer:
            for method, records in make_records().items():
                for record in records:
                    with blocking_calls(seen):
                        notify(observer, method, record)
        assert not seen, (
            f"it calls {', '.join(sorted(set(seen)))}: requests wait for it; count, or use a task or thread"
        )

    async def test_no_secret_is_logged_or_shown(self, shown: CapturedOutput) -> None:
        async with self.opened() as observer:
            notify_all(observer, make_records())
            shown.add(observer)
        shown.assert_contains_none_of(self.secrets)

    async def test_no_record_of_a_server_makes_it_fail(self, shown: CapturedOutput) -> None:
        async with TestClient(self.api(app=answer), raise_app_exceptions=False) as client:
            for message in ("hi", FAILING, ""):
                await client.post("/api/v1/chat", json={"contact_id": "ann", "message": message})
            for path in ("/healthz", "/no/such/path", "/api/v1/threads?contact_id=ann"):
                await client.get(path, headers={"authorization": "Bearer wrong"})
        assert "the observer of" not in shown.text(), "it failed for a record; the log has its traceback"

    async def use(self, observer: Any) -> None:
        notify_all(observer, make_records())


def notify(observer: Any, method: str, record: object) -> None:
    """Call a method of an observer, if it has it. Fails if the method is not a plain function."""
    if hasattr(observer, method):
        assert getattr(observer, method)(record) is None, f"{method} returned something: jimsapi never awaits observers"


def notify_all(observer: Any, records: Mapping[str, Sequence[object]]) -> None:
    """Call an observer with all of these records."""
    for method, some in records.items():
        for record in some:
            notify(observer, method, record)


def make_records() -> dict[str, list[Any]]:
    """Return records of every kind, by the method of observers that gets them."""
    made: dict[str, list[Any]] = {
        "on_request": [
            RequestRecord(method, route, path, status, duration, str(uuid7()), probe, dict(fields))
            for method, route, path, status, duration, probe, fields in (
                ("POST", "/api/v1/chat", "/api/v1/chat", 200, 0.25, False, {"run_id": uuid7(), "contact_id": "Änn"}),
                ("GET", "/healthz", "/healthz", 200, 0.0, True, {}),
                ("GET", "unmatched", "/" + "x" * 10_000, 404, 1e-9, False, {}),
                ("_OTHER", "unmatched", "/a%2F\N{FOX FACE}", 405, 0.001, False, {}),
                ("WEBSOCKET", "/api/v1/chat/ws", "/api/v1/chat/ws", 101, 86_400.0, False, {"messages": 3}),
                ("POST", "/api/v1/chat", "/api/v1/chat", 499, 30.0, False, {"detail": None}),
                ("POST", "/api/v1/chat", "/api/v1/chat", 500, 3.0, False, {}),
            )
        ],
        "on_admission": [
            AdmissionRecord(provider, outcome)
            for provider in ("key", "acme.door")
            for outcome in ("admitted", "passed", "invalid", "denied", "unavailable")
        ],
        "on_run": [
            RunRecord(uuid7(), thread_id, status, 0.0, 1.5, pipelines, provider, usage)
            for status in RunStatus
            for thread_id, pipelines, provider, usage in (
                (
                    uuid7(),
                    (PipelineTiming("greet", 0.0, True), PipelineTiming("answer", 1.5, False)),
                    "key",
                    {"m": UsageTotal(2, 812, 44, 800, 0.25), "": UsageTotal(1)},
                ),
                (None, (), None, {}),
            )
        ],
        "on_commit": [CommitRecord(1, 0.0, False), CommitRecord(500, 12.5, True)],
    }
    assert tuple(made) == METHODS
    return made


@contextmanager
def blocking_calls(seen: list[str]) -> Iterator[None]:
    """Record in `seen` the calls in this thread that wait: sleep, a name server, a connection, a process, a disk."""

    def profile(frame: Any, event: str, called: Any) -> None:
        if event == "c_call" and _blocks(called):
            seen.append(called.__qualname__)

    before = sys.getprofile()
    sys.setprofile(profile)
    try:
        yield
    finally:
        sys.setprofile(before)


def _blocks(called: Any) -> bool:
    owner = getattr(called, "__self__", None)
    if isinstance(owner, socket):
        # Sending a datagram does not wait.
        waits = owner.type == SOCK_STREAM and owner.gettimeout() != 0
        return waits and called.__name__ in ("accept", "connect", "recv", "recv_into", "send", "sendall")
    return called in (time.sleep, _socket.getaddrinfo, _socket.gethostbyname) or called.__name__ in (
        "fork_exec",
        "fsync",
    )


async def answer(ctx: ThreadContext) -> None:
    """The pipeline of the server under test. It raises for the message `FAILING`."""
    if ctx.get_last_user_message() == FAILING:
        raise ValueError("the pipeline fails, as the test wants")
    ctx.send_message("yes")
