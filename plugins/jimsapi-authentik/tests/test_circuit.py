"""The circuit breaker: when it opens, that no request waits while it is open, when it closes, and its metrics."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from calling import Clock, api, call, said, served
from fake_authentik import FakeAuthentik
from jimsapi_authentik.circuit import PAUSE, THRESHOLD, Circuit
from jimsapi_authentik.client import OUTCOMES
from jimsapi_authentik.provider import Authentik
from raw_server import allowing, answer, serving, silent

from jimsapi import AuthUnavailable, Identity
from jimsapi.asgi.testing import TestClient
from tests.raw import metric

pytestmark = pytest.mark.anyio

FAILURE = answer("500 Internal Server Error", b"{}")
GOOD = allowing(passing=True)


class Script:
    """Answers each request by the next of its lines, and holds those that it has none for until one is added."""

    def __init__(self) -> None:
        self.lines: asyncio.Queue[bytes] = asyncio.Queue()
        self.requests = 0

    def add(self, *lines: bytes) -> None:
        for line in lines:
            self.lines.put_nowait(line)

    async def play(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await reader.readuntil(b"\r\n\r\n")
            self.requests += 1
            line = await self.lines.get()
            if line == b"hang up":
                return
            writer.write(line)
            await writer.drain()


class Scene:
    """A provider without a cache, its clock, and its fake Authentik."""

    def __init__(self, script: Script, door: Authentik, clock: Clock) -> None:
        self.script = script
        self.door = door
        self.clock = clock
        self.asked = 0

    def state(self) -> str:
        """What the circuit is in."""
        return self.door.client.circuit.state

    async def say(self) -> Identity | str:
        """The outcome for another token, which needs another call."""
        self.asked += 1
        return await said(self.door, f"token-{self.asked}")

    async def fail(self, count: int) -> None:
        self.script.add(*[FAILURE] * count)
        for _ in range(count):
            assert await self.say() == "AuthUnavailable"


@asynccontextmanager
async def scene() -> AsyncIterator[Scene]:
    script, clock = Script(), Clock()
    async with (
        serving(script.play) as raw,
        Authentik(raw.url, "jims", timeout=30, cache_ttl=0, clock=clock) as door,
    ):
        yield Scene(script, door, clock)


async def test_failures_in_a_row_open_it_and_then_nobody_is_asked_for_a_while(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "jimsapi.authentik")
    async with scene() as on:
        await on.fail(THRESHOLD)
        assert on.state() == "open"
        assert [await on.say() for _ in range(10)] == ["AuthUnavailable"] * 10
        on.clock.now += PAUSE - 0.001
        assert await on.say() == "AuthUnavailable"
        assert on.script.requests == THRESHOLD
        on.clock.now += 0.001
        on.script.add(GOOD, GOOD)
        assert isinstance(await on.say(), Identity)
        assert on.state() == "closed"
        assert isinstance(await on.say(), Identity)
        assert on.script.requests == THRESHOLD + 2
    assert "Authentik answers again" in caplog.text


async def test_an_answer_in_between_starts_the_count_anew() -> None:
    async with scene() as on:
        for _ in range(3):
            await on.fail(THRESHOLD - 1)
            on.script.add(GOOD)
            assert isinstance(await on.say(), Identity)
        assert on.state() == "closed"


@pytest.mark.parametrize(
    "said_by_authentik",
    [
        answer("404 Not Found"),
        answer("403 Forbidden"),
        answer("302 Found", b"", "location: /"),
        answer("429 Too Many Requests"),
        answer(body=b"<html>"),
        answer(body=b'{"passing":"true"}'),
        allowing(passing=False),
    ],
)
async def test_any_answer_below_500_is_no_failure(said_by_authentik: bytes) -> None:
    async with scene() as on:
        await on.fail(THRESHOLD - 1)
        on.script.add(*[said_by_authentik] * THRESHOLD * 2)
        for _ in range(THRESHOLD * 2):
            await on.say()
        assert on.script.requests == THRESHOLD * 3 - 1
        await on.fail(THRESHOLD - 1)
        assert on.state() == "closed"


@pytest.mark.parametrize("line", [b"hang up", answer("502 Bad Gateway"), answer("503 Later", b"")])
async def test_a_broken_connection_and_every_5xx_are_failures(line: bytes) -> None:
    async with scene() as on:
        on.script.add(*[line] * THRESHOLD * 2)
        for _ in range(THRESHOLD):
            assert await on.say() == "AuthUnavailable"
        assert on.state() == "open"


async def test_a_dead_port_and_a_black_hole_are_failures() -> None:
    async with serving(silent) as raw:
        url = raw.url
        for timeout, cause in ((0.05, "timeout"), (5.0, "broken")):
            async with Authentik(url, "jims", timeout=timeout, cache_ttl=0) as door:
                answers = await asyncio.gather(*(said(door, f"token-{n}") for n in range(THRESHOLD)))
                assert answers == ["AuthUnavailable"] * THRESHOLD
                assert door.client.calls == {cause: THRESHOLD}
                assert door.client.circuit.state == "open"
            url = "http://127.0.0.1:1"  # where nothing listens


async def test_one_probe_at_a_time_finds_out_whether_it_is_back() -> None:
    async with scene() as on:
        await on.fail(THRESHOLD)
        on.clock.now += PAUSE
        probe = asyncio.create_task(on.say())
        while on.script.requests == THRESHOLD:
            await asyncio.sleep(0)
        assert on.state() == "half_open"
        assert [await on.say() for _ in range(10)] == ["AuthUnavailable"] * 10
        on.script.add(FAILURE)
        assert await probe == "AuthUnavailable"
        assert on.state() == "open"
        assert await on.say() == "AuthUnavailable"
        assert on.script.requests == THRESHOLD + 1


async def test_a_probe_that_is_cut_off_does_not_leave_it_half_open_for_ever() -> None:
    clock = Clock()
    circuit = Circuit(clock)
    for _ in range(THRESHOLD):
        circuit.enter()
        circuit.leave(working=False)
    clock.now += PAUSE
    async with serving(silent) as raw:
        door = Authentik(raw.url, "jims", timeout=0.05, cache_ttl=0, clock=clock)
        door.client.circuit = circuit
        async with door:
            assert await said(door, "probe") == "AuthUnavailable"
    assert circuit.openings == 2
    clock.now += PAUSE
    circuit.enter()
    circuit.leave(working=True)
    assert circuit.state == "closed"


def test_late_failures_make_the_pause_no_longer() -> None:
    clock = Clock()
    circuit = Circuit(clock)
    for _ in range(THRESHOLD + 3):
        circuit.enter()
    for _ in range(THRESHOLD):
        circuit.leave(working=False)
    clock.now += PAUSE - 1
    circuit.leave(working=False)
    assert circuit.openings == 1
    with pytest.raises(AuthUnavailable, match=r"failed 6 times in a row; the next call is in 1\.0 s"):
        circuit.enter()
    clock.now += 1
    circuit.enter()
    with pytest.raises(AuthUnavailable, match="a test call is active"):
        circuit.enter()


def test_a_probe_that_says_nothing_makes_way_for_the_next_one() -> None:
    clock = Clock()
    circuit = Circuit(clock)
    for _ in range(THRESHOLD):
        circuit.enter()
        circuit.leave(working=False)
    clock.now += PAUSE
    for _ in range(3):
        circuit.enter()
        assert circuit.state == "half_open"
        circuit.leave(working=None)
        assert (circuit.state, circuit.openings) == ("open", 1)


async def test_while_it_is_open_who_was_checked_lately_still_enters_and_so_do_keys(
    authentik: FakeAuthentik, caplog: pytest.LogCaptureFixture
) -> None:
    async with served(**authentik.settings, api_key="key") as client:
        assert (await call(client, "Bearer good")).status_code == 200
        authentik.starting_up = True
        for _ in range(THRESHOLD):
            assert (await call(client, "Bearer other")).status_code == 503
        calls = authentik.calls
        authentik.starting_up = False
        assert (await call(client, "Bearer other")).status_code == 503
        assert (await call(client, "Bearer good")).status_code == 200
        assert (await call(client, "Bearer key")).status_code == 200
        assert authentik.calls == calls
    assert "Authentik failed 5 times in a row; the next call is in 5 s" in caplog.text


async def test_metrics_tell_calls_lookups_and_the_circuit(authentik: FakeAuthentik) -> None:
    watched = api(**authentik.settings)
    async with TestClient(watched) as client:
        text = watched.metrics()
        assert metric(text, "jims_authentik_circuit_state", state="closed") == 1
        for outcome in OUTCOMES:
            assert f'jims_authentik_calls_total{{outcome="{outcome}"}} 0.0' in text
        for token in ("good", "good", "other", "bad"):
            await call(client, f"Bearer {token}")
        authentik.hold()
        authentik.give("shared")
        both = [asyncio.create_task(call(client, "Bearer shared")) for _ in range(2)]
        while not metric(watched.metrics(), "jims_authentik_lookups_total", result="shared"):
            await asyncio.sleep(0)
        authentik.release()
        await asyncio.gather(*both)
        authentik.starting_up = True
        for number in range(THRESHOLD):
            await call(client, f"Bearer down-{number}")
        text = watched.metrics()
    expected = {"ok": 3, "rejected": 1, "unexpected": 0, "error": THRESHOLD, "timeout": 0, "broken": 0, "busy": 0}
    assert {one: metric(text, "jims_authentik_calls_total", outcome=one) for one in OUTCOMES} == expected
    lookups = {one: metric(text, "jims_authentik_lookups_total", result=one) for one in ("hit", "shared", "asked")}
    assert lookups == {"hit": 1, "shared": 1, "asked": 4 + THRESHOLD}
    assert metric(text, "jims_authentik_circuit_state", state="open") == 1
    assert metric(text, "jims_authentik_circuit_state", state="closed") == 0
    assert metric(text, "jims_authentik_circuit_openings_total") == 1
    assert "good" not in text
    assert "down-0" not in text
