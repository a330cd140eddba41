"""Many tokens at once: strangers neither open the circuit of an Authentik that works, nor keep regular callers out."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import jimsapi_authentik.client
import jimsapi_authentik.provider
import pytest
from calling import said
from jimsapi_authentik.circuit import THRESHOLD, Circuit
from jimsapi_authentik.client import Turn
from jimsapi_authentik.provider import Authentik
from raw_server import allowing, answer, serving

from jimsapi import Identity

pytestmark = pytest.mark.anyio

GOOD = allowing(passing=True)
UNKNOWN = answer("403 Forbidden", b'{"detail":"Token invalid/expired"}')
READY = b"/-/health/ready/"

WAIT = 30.0
"""Seconds after which what a test waits for will not come any more."""


class Slow:
    """Answers `good…` and `ready` at once, `slow…` never, and strangers when `go` is set. `arrived` counts these."""

    def __init__(self, *, ready: bytes | None = answer("204 No Content", b"")) -> None:
        self.ready = ready
        self.good = GOOD
        self.go = asyncio.Event()
        self.arrived = 0
        self.heads: list[bytes] = []

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            self.heads.append(head)
            said: bytes | None = UNKNOWN
            if READY in head:
                said = self.ready
            elif b"Bearer good" in head:
                said = self.good
            elif b"Bearer slow" in head:
                said = None
            else:
                self.arrived += 1
                await self.go.wait()
            if said is None:
                await asyncio.Event().wait()
                return
            writer.write(said)
            await writer.drain()

    @property
    def knocks(self) -> list[bytes]:
        return [head for head in self.heads if READY in head]


@asynccontextmanager
async def asked(slow: Slow, seconds: float = 30.0) -> AsyncIterator[Authentik]:
    async with serving(slow) as raw, Authentik(raw.url, "jims", timeout=seconds, cache_ttl=0) as door:
        yield door


def together(door: Authentik, *tokens: str) -> list[asyncio.Task[Identity | str]]:
    return [asyncio.create_task(said(door, token)) for token in tokens]


async def until_arrived(slow: Slow, count: int) -> None:
    async with asyncio.timeout(WAIT):
        while slow.arrived < count:
            await asyncio.sleep(0.001)


def fail(circuit: Circuit, count: int) -> None:
    """Let that many calls fail."""
    for _ in range(count):
        circuit.enter()
        circuit.leave(working=False)


@pytest.fixture
def two_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jimsapi_authentik.client, "MAX_CHECKS", 2)
    monkeypatch.setattr(jimsapi_authentik.client, "RESERVED_CHECKS", 1)


@pytest.mark.usefixtures("two_at_a_time")
async def test_a_time_that_was_spent_waiting_for_a_turn_is_no_failure_of_authentik() -> None:
    slow = Slow()
    async with asked(slow, seconds=1.0) as door:
        answers = await asyncio.gather(*together(door, *(f"stranger-{n}" for n in range(4 * THRESHOLD))))
        assert answers == ["AuthUnavailable"] * 4 * THRESHOLD
        assert door.client.calls == {"timeout": 2, "busy": 4 * THRESHOLD - 2}
        assert (door.client.circuit.state, door.client.circuit.openings) == ("closed", 0)
        assert isinstance(await said(door, "good"), Identity)


async def test_a_call_that_got_its_turn_late_and_ran_out_of_time_is_no_failure_of_authentik(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(jimsapi_authentik.client, "MAX_CHECKS", THRESHOLD)
    slow = Slow(ready=None)
    async with asked(slow, seconds=1.5) as door:
        first = together(door, *(f"stranger-{n}" for n in range(THRESHOLD)))
        await until_arrived(slow, THRESHOLD)
        late = together(door, *(f"slow-{n}" for n in range(THRESHOLD)))
        await asyncio.sleep(0)
        slow.go.set()
        assert await asyncio.gather(*first) == ["InvalidCredentials"] * THRESHOLD
        assert await asyncio.gather(*late) == ["AuthUnavailable"] * THRESHOLD
        assert sum(b"Bearer slow" in head for head in slow.heads) == THRESHOLD
        assert door.client.calls == {"rejected": THRESHOLD, "busy": THRESHOLD}
        assert door.client.circuit.state == "closed"


@pytest.mark.usefixtures("two_at_a_time")
async def test_who_finds_too_many_waiting_is_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jimsapi_authentik.client, "MAX_WAITING", 3)
    slow = Slow()
    async with asked(slow) as door:
        five = together(door, *(f"stranger-{n}" for n in range(5)))
        await until_arrived(slow, 2)
        async with asyncio.timeout(WAIT):  # before any request is answered
            assert await said(door, "one-more") == "AuthUnavailable"
        assert slow.arrived == 2
        assert door.client.calls == {"busy": 1}
        slow.go.set()
        assert await asyncio.gather(*five) == ["InvalidCredentials"] * 5
        for _ in range(2):  # the waiting requests have ended
            assert (
                await asyncio.gather(*together(door, *(f"later-{n}" for n in range(5)))) == ["InvalidCredentials"] * 5
            )


@pytest.mark.usefixtures("two_at_a_time")
async def test_a_token_that_was_admitted_lately_is_checked_again_while_strangers_take_all_turns() -> None:
    slow = Slow()
    async with asked(slow) as door:
        assert isinstance(await said(door, "good"), Identity)
        strangers = together(door, *(f"stranger-{n}" for n in range(20)))
        await until_arrived(slow, 2)
        async with asyncio.timeout(WAIT):  # while the strangers wait
            (new,) = together(door, "good-but-new")
            for _ in range(3):
                assert isinstance(await said(door, "good"), Identity)
        assert not new.done()
        slow.go.set()
        assert isinstance(await new, Identity)
        await asyncio.gather(*strangers)


async def test_of_tokens_that_were_admitted_lately_a_bounded_number_is_known_until_they_are_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(jimsapi_authentik.provider, "MAX_KNOWN", 2)
    slow = Slow()
    async with asked(slow) as door:
        for token in ("good-1", "good-2", "good-1", "good-3"):
            assert isinstance(await said(door, token), Identity)
        assert len(door._known) == 2
        slow.good = allowing(passing=False)
        assert await said(door, "good-2") == "AccessDenied"
        assert len(door._known) == 2
        assert await said(door, "good-3") == "AccessDenied"
        slow.good = UNKNOWN
        assert await said(door, "good-1") == "InvalidCredentials"
        assert door._known == {}


async def test_slow_policies_of_a_few_tokens_do_not_close_the_door_for_everybody() -> None:
    slow = Slow()
    async with asked(slow, seconds=1.0) as door:
        answers = await asyncio.gather(*together(door, *(f"slow-{n}" for n in range(THRESHOLD))))
        assert answers == ["AuthUnavailable"] * THRESHOLD
        assert door.client.calls == {"timeout": THRESHOLD}
        assert (door.client.circuit.state, len(slow.knocks)) == ("closed", 1)
        assert b"authorization" not in slow.knocks[0].lower()
        assert isinstance(await said(door, "good"), Identity)


async def test_one_answer_of_the_readiness_check_is_enough_for_calls_that_began_before_it() -> None:
    slow = Slow()
    async with asked(slow, seconds=1.0) as door:
        calls = []
        for n in range(THRESHOLD):  # the timers of the calls end one after the other
            calls += together(door, f"slow-{n}")
            await asyncio.sleep(0.02)
        assert await asyncio.gather(*calls) == ["AuthUnavailable"] * THRESHOLD
        assert (door.client.circuit.state, len(slow.knocks)) == ("closed", 1)


async def test_a_slow_policy_alone_is_no_reason_to_ask_whether_authentik_is_ready() -> None:
    slow = Slow()
    async with asked(slow, seconds=0.2) as door:
        assert await said(door, "slow") == "AuthUnavailable"
        assert slow.knocks == []


async def test_slow_policies_one_after_the_other_open_nothing() -> None:
    slow = Slow()
    async with asked(slow, seconds=1.0) as door:
        circuit = door.client.circuit
        for _ in range(2):  # the second time the failures of the first are forgotten
            fail(circuit, THRESHOLD - 1)
            assert await said(door, "slow") == "AuthUnavailable"
        assert len(slow.knocks) == 2
        assert (circuit.state, circuit.openings) == ("closed", 0)


async def test_an_answer_to_another_call_tells_a_slow_policy_too() -> None:
    slow = Slow(ready=None)
    async with asked(slow, seconds=1.0) as door:
        slows = together(door, *(f"slow-{n}" for n in range(THRESHOLD)))
        async with asyncio.timeout(WAIT):
            while len(slow.heads) < THRESHOLD:
                await asyncio.sleep(0.001)
        assert isinstance(await said(door, "good"), Identity)
        assert await asyncio.gather(*slows) == ["AuthUnavailable"] * THRESHOLD
        assert door.client.circuit.state == "closed"


@pytest.mark.parametrize("ready", [None, answer("503 Service Unavailable", b"")])
async def test_an_authentik_that_is_not_ready_either_is_left_alone(ready: bytes | None) -> None:
    slow = Slow(ready=ready)
    async with asked(slow, seconds=0.2) as door:
        await asyncio.gather(*together(door, *(f"slow-{n}" for n in range(THRESHOLD))))
        assert door.client.circuit.state == "open"
        assert await said(door, "good") == "AuthUnavailable"


async def test_a_probe_with_a_slow_policy_closes_the_circuit_when_authentik_is_ready() -> None:
    slow = Slow()
    async with asked(slow, seconds=1.0) as door:
        circuit = door.client.circuit
        fail(circuit, THRESHOLD)
        assert circuit.state == "open"
        circuit._probe_at = 0.0  # the pause is over
        assert await said(door, "slow") == "AuthUnavailable"
        assert (circuit.state, circuit.openings) == ("closed", 1)
        assert isinstance(await said(door, "good"), Identity)


async def test_leaving_does_not_wait_for_the_answer_whether_authentik_is_ready() -> None:
    slow = Slow(ready=None)
    async with asked(slow, seconds=60.0) as door:
        circuit = door.client.circuit
        fail(circuit, THRESHOLD - 1)
        circuit.enter()
        door.client._check_readiness(Turn(waited=False, answers=0))
        async with asyncio.timeout(WAIT):
            while not slow.knocks:
                await asyncio.sleep(0.001)
            await door.__aexit__(None, None, None)
