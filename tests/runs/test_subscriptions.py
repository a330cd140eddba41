"""Subscriptions: receivers of runs that plugins notify, with the rules of webhooks."""

import asyncio
import logging
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast
from uuid import UUID, uuid4

import orjson
import pytest

from jimsapi import JimsApp
from jimsapi.builtin.resolvers import DefaultResolver
from jimsapi.runs import subscriptions as module
from jimsapi.runs.admission import PUBLIC
from jimsapi.runs.live import LiveRun
from jimsapi.runs.service import RunService
from jimsapi.runs.subscriptions import Notice, Subscriptions
from jimsapi.stores.memory import MemoryStore
from jimsapi.threads.errors import InputRefused, RunNotFound, StoreLacks, StoreUnavailable
from jimsapi.threads.ids import uuid7
from jimsapi.threads.run import OPEN
from jimsapi.threads.store import ThreadStore
from jimsapi.threads.subscriptions import Subscription
from tests.apps.scripted import Scripted
from tests.runs.receiver import KEY, OK, Receiver, answer
from tests.runs.serving import STORES, ended, inbound, make_store, serving, taken

pytestmark = pytest.mark.anyio

LIMIT = 30


class Ends:
    """Notifies receivers of the end of their run; before that, of each of `news`."""

    kind = "test"

    def __init__(self) -> None:
        self.service: RunService | None = None
        self.news: list[str] = []
        self.asked = 0
        self.raises: BaseException | None = None

    async def notice(self, subscription: Subscription) -> Notice | None:
        self.asked += 1
        if self.raises is not None:
            raise self.raises
        assert self.service is not None
        run = await self.service.store.run(subscription.run_id, None, None)
        state = self.news[-1] if self.news else None if run.status in OPEN else run.status.value
        if state is None:
            return None
        url, *secret = orjson.loads(subscription.data)
        headers = {"content-type": "application/test+json", "authorization": "".join(secret) or "none"}
        return Notice(state, url, orjson.dumps({"state": state}), headers, last=not self.news)


@asynccontextmanager
async def notifying(
    bot: Scripted | None = None, store: ThreadStore | None = None, ends: Ends | None = None, **options: Any
) -> AsyncIterator[tuple[RunService, Ends]]:
    """A service that notifies, at private addresses and again at once, unless the options say otherwise."""
    ends = ends or Ends()
    given = {"keys": (KEY,), "allow_private": True, "retry_after": (0.0,) * 6, **options}
    async with serving(bot or Scripted(), store, subscriptions=Subscriptions(**given)) as service:
        ends.service = service
        service.use_notifier(ends)
        yield service, ends


def to(run: LiveRun, url: str, *secret: str, name: str = "first", caller: UUID | None = None) -> Subscription:
    """A subscription to a run that a thread has taken."""
    assert run.thread is not None
    return Subscription(uuid7(), run.run_id, run.thread.thread_id, "test", name, caller, orjson.dumps([url, *secret]))


async def held(service: RunService, door: str = "on", **fields: Any) -> LiveRun:
    """A run that waits until the bot opens a door."""
    return await taken(service.begin(inbound(f"hold {door}; send done", **fields), PUBLIC))


async def finished(service: RunService, **fields: Any) -> LiveRun:
    run = service.begin(inbound(**fields), PUBLIC)
    await run.wait_for_answer()
    await ended(service)
    return run


async def until(service: RunService, **outcomes: int) -> None:
    """Wait until notices have had these outcomes; no others may be among them."""
    async with asyncio.timeout(30):
        while service.subscriptions.outcomes.total() < sum(outcomes.values()):
            await asyncio.sleep(0.001)
    assert dict(service.subscriptions.outcomes) == outcomes


async def unsettled(service: RunService) -> int:
    assert service.store.subscriptions is not None
    return await service.store.subscriptions.count()


# When a receiver is called.


@pytest.mark.parametrize("kind", STORES)
async def test_a_receiver_is_called_once_when_its_run_has_ended(kind: str, tmp_path: Path) -> None:
    bot = Scripted()
    async with Receiver() as receiver, notifying(bot, make_store(kind, tmp_path)) as (service, _):
        run = await held(service)
        assert await service.subscriptions.add(to(run, receiver.url(), "Bearer x"), LIMIT)
        bot.opened["on"].set()
        call = await receiver.call()
        assert call.verified() == {"state": "completed"}
        assert call.headers["content-type"] == "application/test+json"
        assert call.headers["authorization"] == "Bearer x"
        await until(service, delivered=1)
        await service.chat(inbound("another"), PUBLIC)
        await service.drain(1)
        assert receiver.calls.empty()
        assert await unsettled(service) == 0


@pytest.mark.parametrize("kind", STORES)
async def test_a_receiver_that_is_added_after_the_end_is_called_too(kind: str, tmp_path: Path) -> None:
    async with Receiver() as receiver, notifying(store=make_store(kind, tmp_path)) as (service, _):
        run = await finished(service)
        assert await service.subscriptions.add(to(run, receiver.url()), LIMIT)
        assert (await receiver.call()).verified() == {"state": "completed"}


async def test_the_end_of_another_run_of_the_thread_is_a_reason_to_look() -> None:
    async with Receiver() as receiver, notifying() as (service, ends):
        ends.news.append("asked")
        run = await finished(service)
        await service.subscriptions.add(to(run, receiver.url()), LIMIT)
        assert (await receiver.call()).verified() == {"state": "asked"}
        ends.news.clear()
        await finished(service)
        assert (await receiver.call()).verified() == {"state": "completed"}
        await until(service, delivered=2)


async def test_a_run_that_ends_while_its_receiver_is_called_is_looked_at_again() -> None:
    async with Receiver(None, OK) as receiver, notifying(Scripted()) as (service, ends):
        ends.news.append("asked")
        run = await finished(service)
        await service.subscriptions.add(to(run, receiver.url()), LIMIT)
        await receiver.call()  # which gets no answer yet
        ends.news.clear()
        await finished(service)
        while not service.subscriptions._due_again:
            await asyncio.sleep(0.001)
        receiver.hang_up()
        assert (await receiver.call()).verified() == {"state": "completed"}


async def test_a_run_that_ends_without_an_event_is_a_reason_to_look(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOOK_AGAIN_AFTER", 600.0)
    bot = Scripted()
    async with Receiver() as receiver, notifying(bot) as (service, ends):
        await held(service)
        waits = await taken(service.begin(inbound("second"), PUBLIC, watched=True))
        await service.subscriptions.add(to(waits, receiver.url()), LIMIT)
        while not ends.asked:  # until it is due by itself again
            await asyncio.sleep(0.001)
        await service.cancel(waits.run_id)
        async with asyncio.timeout(10):
            assert (await receiver.call()).verified() == {"state": "cancelled"}
        bot.opened["on"].set()


async def test_nothing_is_looked_at_when_a_run_ends_while_there_are_no_subscriptions() -> None:
    async with notifying() as (service, ends):
        await finished(service)
        assert not service.subscriptions._changed_threads
        assert ends.asked == 0


# Several receivers, and those that fail.


async def test_a_receiver_that_refuses_for_good_does_not_stop_the_others(caplog: pytest.LogCaptureFixture) -> None:
    bot = Scripted()
    async with Receiver(answer(403)) as refusing, Receiver() as works, notifying(bot) as (service, _):
        run = await held(service)
        for number, receiver in enumerate((refusing, works, refusing)):
            await service.subscriptions.add(
                to(run, receiver.url(target="/?key=hidden"), "hidden", name=f"{number}"), LIMIT
            )
        bot.opened["on"].set()
        assert (await works.call()).verified() == {"state": "completed"}
        await until(service, delivered=1, failed=2)
        assert refusing.calls.qsize() == 2
        assert await unsettled(service) == 0
        assert not service.subscriptions._open
    assert "given up after 1 calls: the answer was 403" in caplog.text
    assert "hidden" not in caplog.text


async def test_a_notice_that_may_be_delivered_later_is_sent_again_as_the_same_webhook() -> None:
    async with Receiver(answer(503), answer(429), OK) as receiver, notifying() as (service, _):
        await service.subscriptions.add(to(await finished(service), receiver.url()), LIMIT)
        await until(service, delivered=1)
        calls = [receiver.calls.get_nowait() for _ in range(3)]
        assert len({call.headers["webhook-id"] for call in calls}) == 1
        assert {call.verified()["state"] for call in calls} == {"completed"}


async def test_a_notice_is_given_up_after_the_last_call_and_the_next_one_has_all_its_calls() -> None:
    async with Receiver(answer(500)) as receiver, notifying(retry_after=(0, 0)) as (service, ends):
        ends.news.append("asked")
        await service.subscriptions.add(to(await finished(service), receiver.url()), LIMIT)
        await until(service, failed=1)
        assert receiver.calls.qsize() == 3
        ends.news.clear()
        await finished(service)
        await until(service, failed=2)
        assert receiver.calls.qsize() == 6
        assert await unsettled(service) == 0


async def test_a_thread_that_goes_on_hastens_no_retry_and_the_next_notice_waits_for_none() -> None:
    async with Receiver(answer(503)) as receiver, notifying(retry_after=(3600,)) as (service, ends):
        ends.news.append("asked")
        await service.subscriptions.add(to(await finished(service), receiver.url()), LIMIT)
        await receiver.call()
        for _ in range(3):
            asked = ends.asked
            await finished(service)
            while ends.asked == asked:
                await asyncio.sleep(0.001)
        assert receiver.calls.empty()
        ends.news.clear()
        await finished(service)
        assert (await receiver.call()).verified() == {"state": "completed"}


async def test_a_private_address_is_refused_when_a_receiver_is_added_and_when_it_is_called() -> None:
    async with Receiver() as receiver, notifying(allow_private=False) as (service, _):
        with pytest.raises(InputRefused, match="should begin with https"):
            await service.subscriptions.check(receiver.url(), "url")
        with pytest.raises(InputRefused, match="public address"):
            await service.subscriptions.check("https://10.0.0.1/hook", "url")
        await service.subscriptions.check("https://example.com/hook", "url")
        await service.subscriptions.add(to(await finished(service), receiver.url()), LIMIT)
        await until(service, refused=1)
        assert receiver.calls.empty()


async def test_a_name_that_leads_to_a_private_address_is_not_called() -> None:
    async def inside(host: str, port: int) -> list[str]:
        return ["192.168.0.1"]

    async with notifying(allow_private=False, resolver=inside) as (service, _):
        await service.subscriptions.add(to(await finished(service), "https://inside.example/"), LIMIT)
        await until(service, refused=1)


async def test_without_a_secret_calls_are_not_signed() -> None:
    async with Receiver() as receiver, notifying(keys=()) as (service, _):
        await service.subscriptions.add(to(await finished(service), receiver.url()), LIMIT)
        headers = (await receiver.call()).headers
        assert headers["webhook-id"].startswith("notice_")
        assert "webhook-signature" not in headers


async def test_a_slow_host_and_a_caller_with_many_take_no_more_than_their_share() -> None:
    async def names(host: str, port: int) -> list[str]:
        return ["127.0.0.1"]

    busy = uuid4()
    async with Receiver(None) as slow, Receiver() as works, notifying(resolver=names) as (service, _):
        run = await finished(service)
        for number in range(10):
            await service.subscriptions.add(to(run, slow.url("slow.example"), name=f"slow {number}"), 1000)
        for number in range(20):
            one = to(run, slow.url(f"{number}.example"), name=f"busy {number}", caller=busy)
            await service.subscriptions.add(one, 1000)
        await service.subscriptions.add(to(run, works.url("works.example"), name="works", caller=uuid4()), 1000)
        await until(service, delivered=1)
        assert slow.calls.qsize() <= module.AT_ONCE_TO_A_HOST + module.AT_ONCE_FOR_A_CALLER


async def test_those_that_wait_for_a_slow_host_are_due_one_after_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WAITING_APART", 20.0)
    waits: list[float] = []
    waiting = 20
    async with Receiver(None) as slow, notifying() as (service, _):
        run = await finished(service)
        kept = cast(MemoryStore, service.store).subscriptions
        delay = kept.delay

        async def noted(subscription_id: UUID, seconds: float, notice: str | None, calls: int) -> None:
            waits.append(seconds)
            await delay(subscription_id, seconds, notice, calls)

        monkeypatch.setattr(kept, "delay", noted)
        for number in range(module.AT_ONCE_TO_A_HOST + waiting):
            await service.subscriptions.add(to(run, slow.url(), name=str(number)), 1000)
        while len(waits) < waiting:
            await asyncio.sleep(0.001)
        later = sorted(waits[:waiting])
        assert later[0] <= module.WAIT_FOR_OTHERS
        assert later[5] > 90
        assert later[-1] == pytest.approx(module.WAIT_AT_LONGEST)


# What plugins do wrong.


async def test_a_notifier_that_fails_is_logged_and_asked_again(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "HOLD", 0.0)
    monkeypatch.setattr(module, "LOOK_EVERY", 0.01)
    async with Receiver() as receiver, notifying() as (service, ends):
        ends.raises = ValueError("broken")
        await service.subscriptions.add(to(await finished(service), receiver.url(), "hidden"), LIMIT)
        while ends.asked < 2:
            await asyncio.sleep(0.001)
        ends.raises = StoreUnavailable("down")
        asked = ends.asked
        while ends.asked < asked + 2:
            await asyncio.sleep(0.001)
        ends.raises = None
        await until(service, delivered=1)
    assert "the notice of a subscription of test failed" in caplog.text
    assert "hidden" not in caplog.text


async def test_a_notifier_that_says_that_the_run_is_gone_has_the_subscription_deleted() -> None:
    async with notifying() as (service, ends):
        run = await finished(service)
        ends.raises = RunNotFound(run.run_id)
        await service.subscriptions.add(to(run, "http://127.0.0.1:9/"), LIMIT)
        while await service.subscriptions.of_run(run.run_id, "test"):
            await asyncio.sleep(0.001)


async def test_two_notifiers_of_a_kind_are_refused() -> None:
    async with notifying() as (service, _):
        with pytest.raises(ValueError, match="two plugins notify subscriptions of the kind 'test'"):
            service.use_notifier(Ends())


async def test_a_store_without_subscriptions_says_so() -> None:
    store = MemoryStore()
    store.subscriptions = None  # type: ignore[assignment] # as the store of a plugin that keeps none
    async with notifying(store=store) as (service, _):
        assert not service.subscriptions.is_supported
        with pytest.raises(StoreLacks, match="MemoryStore does not have subscriptions"):
            await service.subscriptions.add(to(await finished(service), "http://127.0.0.1:9/"), LIMIT)


def test_what_a_receiver_is_called_with_is_not_shown() -> None:
    subscription = Subscription(uuid7(), uuid7(), uuid7(), "test", "first", None, b"hidden")
    notice = Notice("done", "https://example.com/?hidden", b"hidden", {"authorization": "hidden"}, last=True)
    assert "hidden" not in f"{subscription!r} {notice!r} {[notice]} {subscription}"


# The end of the process.


async def test_a_drain_gives_first_calls_a_moment_and_interrupted_runs_are_told() -> None:
    async with Receiver() as receiver, notifying() as (service, _):
        await service.subscriptions.add(to(await held(service), receiver.url()), LIMIT)
        await service.drain(0)
        assert receiver.calls.get_nowait().verified() == {"state": "interrupted"}
        assert service.subscriptions.outcomes == {"delivered": 1}


async def test_a_call_that_a_stop_cuts_off_is_made_after_the_next_start(tmp_path: Path) -> None:
    async with Receiver(None, OK) as receiver:
        async with notifying(store=make_store("sqlite", tmp_path)) as (service, _):
            await service.subscriptions.add(to(await finished(service), receiver.url()), LIMIT)
            first = await receiver.call()
        async with notifying(store=make_store("sqlite", tmp_path)) as (service, _):
            again = await receiver.call()
            await until(service, delivered=1)
        assert again.headers["webhook-id"] == first.headers["webhook-id"]


async def test_a_call_that_a_stop_cuts_off_is_made_by_another_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOOK_EVERY", 0.01)
    store = MemoryStore()
    async with Receiver(None, OK) as receiver:
        async with notifying(store=store) as (service, _):
            await service.subscriptions.add(to(await finished(service), receiver.url()), LIMIT)
            first = await receiver.call()
        async with notifying(store=store) as (other, _):
            again = await receiver.call()
            await until(other, delivered=1)
        assert again.headers["webhook-id"] == first.headers["webhook-id"]


async def test_a_receiver_of_a_process_that_died_is_called_after_the_next_start(tmp_path: Path) -> None:
    store = make_store("sqlite", tmp_path)
    async with Receiver() as receiver, store:
        # A service that nobody leaves is what a process that dies leaves behind.
        app = JimsApp(Scripted())
        dead = await RunService(app, store, [DefaultResolver()], subscriptions=Subscriptions()).__aenter__()
        run = await held(dead)
        await dead.subscriptions.add(to(run, receiver.url()), LIMIT)
        assert store.subscriptions is not None
        await store.subscriptions.take(10, 3600.0)  # it was about to look
        async with notifying(store=cast(ThreadStore, _Shared(store))) as (service, _):
            assert (await receiver.call()).verified() == {"state": "interrupted"}
            await until(service, delivered=1)
        await dead.__aexit__()


class _Shared:
    """The same store, which is neither opened nor closed again."""

    def __init__(self, store: ThreadStore) -> None:
        self._store = store

    async def __aenter__(self) -> ThreadStore:
        return self._store

    async def __aexit__(self, *_: object) -> None:
        pass


async def test_two_processes_call_a_receiver_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOOK_EVERY", 0.01)
    monkeypatch.setattr(module, "LOOK_AGAIN_AFTER", 0.0)
    store, bot = MemoryStore(), Scripted()
    async with Receiver() as receiver, notifying(bot, store) as (service, _), notifying(store=store) as (_, others):
        run = await held(service)
        await service.subscriptions.add(to(run, receiver.url()), LIMIT)
        while not others.asked:  # the other process looks, too
            await asyncio.sleep(0.001)
        bot.opened["on"].set()
        assert (await receiver.call()).verified() == {"state": "completed"}
        while await unsettled(service):
            await asyncio.sleep(0.001)
        assert receiver.calls.empty()


def test_a_service_without_subscriptions_imports_no_http_client() -> None:
    code = "import sys; import jimsapi.runs.service; sys.exit('httpx' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


async def test_a_retry_is_logged_without_the_secrets_of_its_address(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "jimsapi.webhooks")
    async with Receiver(answer(503), OK) as receiver, notifying() as (service, _):
        await service.subscriptions.add(to(await finished(service), receiver.url(target="/?key=hidden")), LIMIT)
        await until(service, delivered=1)
    assert f"the receiver at 127.0.0.1:{receiver.port} is called again in 0 s: the answer was 503" in caplog.text
    assert "hidden" not in caplog.text
