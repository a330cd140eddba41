"""The cache of decisions: how long they are valid, how many it has, and that simultaneous requests share a call."""

import asyncio
import gc
from collections.abc import Awaitable, Callable
from typing import Any

import jimsapi_authentik.provider
import pytest
from calling import Clock, said
from fake_authentik import FakeAuthentik
from jimsapi_authentik.provider import Authentik
from raw_server import allowing, answer, once, serving, silent

from jimsapi import AuthUnavailable, Connection, Identity

pytestmark = pytest.mark.anyio


def provider(fake: FakeAuthentik, clock: Callable[[], float], *, cache_ttl: float = 30.0) -> Authentik:
    return Authentik(fake.url, fake.slug, timeout=5.0, cache_ttl=cache_ttl, ca_file=fake.ca_file, clock=clock)


async def eventually(condition: Callable[[], Awaitable[bool]]) -> None:
    """Wait until something is so. Raises `TimeoutError` if it does not become so."""
    async with asyncio.timeout(30):
        while not await condition():
            await asyncio.sleep(0.01)


async def test_an_admission_holds_for_its_time_and_a_refusal_for_5_seconds_at_most(authentik: FakeAuthentik) -> None:
    clock = Clock()
    async with provider(authentik, clock) as door:
        assert isinstance(await said(door, "good"), Identity)
        assert [await said(door, token) for token in ("other", "bad")] == ["AccessDenied", "InvalidCredentials"]
        authentik.give("good", allowed=False)
        authentik.give("other")
        authentik.give("bad")
        clock.now += 4.999
        assert [await said(door, token) for token in ("other", "bad")] == ["AccessDenied", "InvalidCredentials"]
        assert authentik.calls == 3
        clock.now += 0.001
        assert isinstance(await said(door, "other"), Identity)
        assert isinstance(await said(door, "bad"), Identity)
        clock.now += 24.999
        assert isinstance(await said(door, "good"), Identity)
        assert authentik.calls == 5
        clock.now += 0.001
        assert await said(door, "good") == "AccessDenied"


async def test_a_refusal_never_holds_longer_than_an_admission(authentik: FakeAuthentik) -> None:
    clock = Clock()
    async with provider(authentik, clock, cache_ttl=2.0) as door:
        assert await said(door, "other") == "AccessDenied"
        clock.now += 2
        authentik.give("other")
        assert isinstance(await said(door, "other"), Identity)


async def test_a_decision_s_time_counts_from_the_question_and_not_from_the_answer(authentik: FakeAuthentik) -> None:
    """Access may be revoked before the answer arrives. The decision must then still expire in time."""
    clock = Clock()
    async with provider(authentik, clock) as door:
        authentik.hold()
        asked = asyncio.create_task(said(door, "good"))
        await authentik.arrived(1)
        clock.now += 10
        authentik.release()
        assert isinstance(await asked, Identity)
        authentik.give("good", allowed=False)
        clock.now += 19.999
        assert isinstance(await said(door, "good"), Identity)
        clock.now += 0.001
        assert await said(door, "good") == "AccessDenied"


async def test_without_a_cache_every_request_is_asked_about_and_concurrent_ones_still_share(
    authentik: FakeAuthentik,
) -> None:
    async with provider(authentik, Clock(), cache_ttl=0) as door:
        for token in ("good", "good", "other", "other"):
            await said(door, token)
        assert authentik.calls_by_token == {"good": 2, "other": 2}
        authentik.hold()
        asked = [asyncio.create_task(said(door, "good")) for _ in range(50)]
        await authentik.arrived(5)
        authentik.release()
        assert len({id(identity) for identity in await asyncio.gather(*asked)}) == 1
        assert authentik.calls == 5


async def test_that_it_was_unavailable_is_not_kept(authentik: FakeAuthentik) -> None:
    async with provider(authentik, Clock()) as door:
        authentik.starting_up = True
        assert await said(door, "good") == "AuthUnavailable"
        authentik.starting_up = False
        assert isinstance(await said(door, "good"), Identity)


async def test_kept_decisions_are_bounded_and_made_up_tokens_push_no_good_ones_out(
    authentik: FakeAuthentik, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jimsapi_authentik.provider, "MAX_DECISIONS", 3)
    async with provider(authentik, Clock()) as door:
        assert isinstance(await said(door, "good"), Identity)
        for number in range(8):
            assert await said(door, f"made-up-{number}") == "InvalidCredentials"
        calls = authentik.calls
        assert isinstance(await said(door, "good"), Identity)
        for number in (5, 6, 7):
            await said(door, f"made-up-{number}")
        assert authentik.calls == calls
        await said(door, "made-up-4")
        assert authentik.calls == calls + 1
        assert (len(door._admitted), len(door._refused)) == (1, 3)


def reachable(start: object) -> set[str]:
    """All text that can be reached from an object."""
    found: set[str] = set()
    waiting, seen = [start], {id(start)}
    while waiting:
        one = waiting.pop()
        if isinstance(one, str | bytes):
            found.add(one if isinstance(one, str) else one.decode("latin-1"))
            continue
        if type(one).__module__.startswith(("jimsapi", "builtins", "collections")):
            for inner in gc.get_referents(one):
                if id(inner) not in seen and not isinstance(inner, type) and not callable(inner):
                    seen.add(id(inner))
                    waiting.append(inner)
    return found


async def test_no_token_is_kept_nor_shown_by_what_is(authentik: FakeAuthentik) -> None:
    tokens = ["token-that-is-good", "token-that-is-denied"]
    authentik.give(tokens[0])
    authentik.give(tokens[1], allowed=False)
    async with provider(authentik, Clock()) as door:
        identity = await said(door, tokens[0])
        await said(door, tokens[1])
        kept = reachable(door)
    assert isinstance(identity, Identity)
    assert identity.subject in kept
    assert not [text for text in kept if any(token in text for token in tokens)]
    assert tokens[0] not in repr(identity)


async def test_the_subject_of_an_unbound_identity_is_its_token_s_own_after_a_restart_too(
    authentik: FakeAuthentik,
) -> None:
    authentik.give("good-2")
    subjects = []
    for _ in range(2):
        async with provider(authentik, Clock()) as door:
            for token in ("good", "good-2"):
                identity = await said(door, token)
                assert isinstance(identity, Identity)
                subjects.append(identity.subject)
                assert (identity.contact_id, identity.scopes) == (None, {"chat"})
    assert subjects[:2] == subjects[2:]
    assert subjects[0] != subjects[1]


async def test_a_caller_who_hangs_up_does_not_end_the_call_of_the_others(authentik: FakeAuthentik) -> None:
    async with provider(authentik, Clock()) as door:
        authentik.hold()
        first, second = (asyncio.create_task(said(door, "good")) for _ in range(2))
        await authentik.arrived(1)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        authentik.release()
        assert isinstance(await second, Identity)
        assert authentik.calls == 1


async def test_a_call_whose_callers_have_all_gone_is_finished_and_kept(authentik: FakeAuthentik) -> None:
    async with provider(authentik, Clock()) as door:
        authentik.hold()
        only = asyncio.create_task(said(door, "good"))
        await authentik.arrived(1)
        only.cancel()
        with pytest.raises(asyncio.CancelledError):
            await only
        authentik.release()

        async def kept() -> bool:
            return len(door._admitted) == 1 and not door._checks

        await eventually(kept)


async def test_a_call_that_fails_when_its_callers_have_gone_is_no_noise(
    authentik: FakeAuthentik, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with provider(authentik, Clock()) as door:
        failed = asyncio.Event()

        async def fail(*_: object) -> Any:
            await asyncio.sleep(0)
            failed.set()
            raise LookupError("a fault of the plugin's own")

        monkeypatch.setattr(door.client, "get", fail)
        only = asyncio.create_task(said(door, "good"))
        await asyncio.sleep(0)
        only.cancel()
        await failed.wait()
        with pytest.raises(asyncio.CancelledError):
            await only
        del only  # and with it all that holds the call, which complains when it is collected
        await asyncio.sleep(0)
        gc.collect()
        assert "never retrieved" not in caplog.text
        with pytest.raises(LookupError):
            await said(door, "good")


async def test_who_waits_when_the_server_stops_is_told_so() -> None:
    request = Connection({"type": "http", "headers": [(b"authorization", b"Bearer good")]})
    async with serving(silent) as raw:
        async with Authentik(raw.url, "jims", timeout=20, cache_ttl=30) as door:
            waiting = asyncio.create_task(door.authenticate(request))

            async def connected() -> bool:
                return raw.connections == 1

            await eventually(connected)
        with pytest.raises(AuthUnavailable, match="the server stops"):
            await waiting
        assert door._checks == {}


async def test_all_who_share_a_failed_call_are_refused_and_the_next_asks_again() -> None:
    said_next = [answer("500 Internal Server Error"), allowing(passing=True)]

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await once(said_next.pop(0))(reader, writer)

    async with (
        serving(connected) as raw,
        Authentik(raw.url, "jims", timeout=5, cache_ttl=30) as door,
    ):
        answers = await asyncio.gather(*(said(door, "good") for _ in range(20)))
        assert answers == ["AuthUnavailable"] * 20
        assert isinstance(await said(door, "good"), Identity)
        assert raw.connections == 2
