"""Webhooks: signed, called again, never where they must not go, and no burden to runs and to the shutdown."""

import asyncio
import base64
import logging
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from ipaddress import IPv4Address, ip_address
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

import orjson
import pytest
import trustme
from standardwebhooks import WebhookVerificationError

from jimsapi.runs import flow as flow_module
from jimsapi.runs import service as service_module
from jimsapi.runs import webhooks as module
from jimsapi.runs.admission import PUBLIC
from jimsapi.runs.service import RunService
from jimsapi.runs.signing import signatures, signing_key
from jimsapi.runs.webhooks import Webhooks, is_public
from jimsapi.stores.memory import MemoryStore
from jimsapi.testing.store import make_plan
from jimsapi.testing.store.samples import outbox_of
from jimsapi.threads.errors import InputRefused, StoreUnavailable
from jimsapi.threads.event import utc_now
from jimsapi.threads.run import StoredRun
from jimsapi.threads.store import ThreadStore
from tests.apps.scripted import Scripted
from tests.runs.failing import Failing
from tests.runs.receiver import KEY, OK, Receiver, answer
from tests.runs.serving import STORES, caller, ended, inbound, make_store, serving, taken

pytestmark = pytest.mark.anyio

AT_ONCE = (0.0,) * 6


def told(run: StoredRun) -> bytes:
    """The payload of these tests."""
    return orjson.dumps({"run_id": run.run_id, "status": run.status})


class Names:
    """Leads every name to `addresses`, one list for each time it is asked; the last goes on."""

    def __init__(self, *addresses: Sequence[str]) -> None:
        self._addresses = list(addresses)
        self.asked: list[tuple[str, int]] = []

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        self.asked.append((host, port))
        return self._addresses.pop(0) if len(self._addresses) > 1 else self._addresses[0]


@asynccontextmanager
async def calling(
    bot: Scripted | None = None, store: ThreadStore | None = None, keys: Sequence[bytes] = (KEY,), **options: Any
) -> AsyncIterator[tuple[RunService, Webhooks]]:
    """A service that calls webhooks, at private addresses and again at once, unless the options say otherwise."""
    store = store or MemoryStore()
    webhooks = Webhooks(keys, store, told, **{"allow_private": True, "retry_after": AT_ONCE, **options})
    async with serving(bot or Scripted(), store, webhooks=webhooks) as service:
        yield service, webhooks


async def a_run(service: RunService) -> UUID:
    """A run that has ended, and has no webhook."""
    return (await service.chat(inbound(), PUBLIC)).run_id


async def until(webhooks: Webhooks, **outcomes: int) -> None:
    """Wait until webhooks have had these outcomes; no others may be among them."""
    async with asyncio.timeout(30):
        while webhooks.outcomes.total() < sum(outcomes.values()):
            await asyncio.sleep(0.001)
    assert dict(webhooks.outcomes) == outcomes


# What is said, and by whom.


async def test_a_call_is_signed_as_the_specification_has_it() -> None:
    async with Receiver() as receiver, calling() as (service, webhooks):
        run = service.begin(inbound(webhook_url=receiver.url(target="/hook?of=ann")), PUBLIC)
        call = await receiver.call()
        assert call.verified() == {"run_id": str(run.run_id), "status": "completed"}
        assert call.target == "/hook?of=ann"
        assert call.headers["host"] == f"127.0.0.1:{receiver.port}"
        assert call.headers["content-type"] == "application/json"
        assert "." not in call.headers["webhook-id"]
        await until(webhooks, delivered=1)


async def test_the_signature_is_that_of_a_known_example() -> None:
    # Made with the specification's library in JavaScript.
    key = signing_key("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    signed = signatures([key], "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    assert signed == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


async def test_every_secret_signs_so_that_one_can_be_changed_for_another() -> None:
    keys = [KEY, bytes(range(64))]
    async with Receiver() as receiver, calling(keys=keys) as (service, _):
        await service.chat(inbound(webhook_url=receiver.url()), PUBLIC)
        call = await receiver.call()
    for key in keys:
        call.verified("whsec_" + base64.b64encode(key).decode())
    with pytest.raises(WebhookVerificationError):
        call.verified("whsec_" + base64.b64encode(bytes(32)).decode())


@pytest.mark.parametrize(
    ("secret", "fault"),
    [
        ("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_"),
        ("whsec_", "0 bytes"),
        ("whsec_" + base64.b64encode(bytes(23)).decode(), "23 bytes"),
        ("whsec_" + base64.b64encode(bytes(65)).decode(), "65 bytes"),
        ("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLa-_", "Base64"),
        ("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaS", "Base64"),
        ("whsec_é", "Base64"),
    ],
)
def test_a_secret_that_the_specification_does_not_know_is_refused_without_being_quoted(secret: str, fault: str) -> None:
    with pytest.raises(ValueError, match=fault) as refused:
        signing_key(secret)
    assert secret.removeprefix("whsec_") not in str(refused.value) or secret == "whsec_"


@pytest.mark.parametrize(
    ("message", "status"), [("send a", "completed"), ("raise no", "failed"), ("unstorable", "failed")]
)
async def test_how_a_run_ended_is_told(message: str, status: str) -> None:
    async with Receiver() as receiver, calling() as (service, _):
        service.begin(inbound(message, webhook_url=receiver.url()), PUBLIC)
        assert (await receiver.call()).verified()["status"] == status


@pytest.mark.parametrize("kind", STORES)
async def test_a_cancelled_run_is_told_whether_it_had_started_or_not(kind: str, tmp_path: Path) -> None:
    bot = Scripted()
    async with Receiver() as receiver, calling(bot, make_store(kind, tmp_path)) as (service, _):
        held = service.begin(inbound("hold on", webhook_url=receiver.url()), PUBLIC)
        await bot.reached["on"].wait()
        waits = await taken(service.begin(inbound(webhook_url=receiver.url()), PUBLIC, background=True))
        for run in (waits, held):
            await service.cancel(run.run_id)
            assert (await receiver.call()).verified() == {"run_id": str(run.run_id), "status": "cancelled"}


async def test_a_run_that_no_thread_took_is_not_told() -> None:
    async with Receiver() as receiver, calling() as (service, webhooks):
        refused = service.begin(inbound(thread_id=uuid4(), webhook_url=receiver.url()), PUBLIC)
        await ended(service)
        assert refused.answer.exception() is not None
        await service.drain(1)
        assert receiver.calls.empty()
        assert not webhooks.outcomes


@pytest.mark.parametrize("kind", STORES)
async def test_a_message_that_is_sent_again_with_its_key_is_told_once(kind: str, tmp_path: Path) -> None:
    async with Receiver() as receiver, calling(store=make_store(kind, tmp_path)) as (service, webhooks):
        for _ in range(3):
            await service.begin(inbound(webhook_url=receiver.url()), caller(), key="key").answer
        for _ in range(3):
            service.begin(inbound(webhook_url=receiver.url()), caller(), key="key")
        await ended(service)
        await until(webhooks, delivered=1)
        await service.drain(1)
    assert receiver.calls.qsize() == 1


async def test_a_run_of_a_dead_process_is_told_by_the_one_that_takes_it_over(tmp_path: Path) -> None:
    bot = Scripted()
    async with Receiver() as receiver:
        async with calling(bot, make_store("sqlite", tmp_path)) as (service, webhooks):
            service.begin(inbound("hold on"), PUBLIC)
            await bot.reached["on"].wait()
            run = await taken(service.begin(inbound(webhook_url=receiver.url()), PUBLIC, background=True))
            await service.drain(0)
        assert not webhooks.outcomes
        async with calling(store=make_store("sqlite", tmp_path)) as (service, webhooks):
            assert (await receiver.call()).verified() == {"run_id": str(run.run_id), "status": "completed"}
            await until(webhooks, delivered=1)


async def test_a_run_that_is_taken_over_by_a_process_without_a_secret_is_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bot = Scripted()
    async with calling(bot, make_store("sqlite", tmp_path)) as (service, _):
        service.begin(inbound("hold on"), PUBLIC)
        await bot.reached["on"].wait()
        run = await taken(service.begin(inbound(webhook_url="https://hooks.example/"), PUBLIC, background=True))
        await service.drain(0)
    async with serving(Scripted(), make_store("sqlite", tmp_path)) as service:
        await ended(service)
    assert f"run {run.run_id}: its webhook is not called, because --webhook-secret is not set" in caplog.messages


async def test_a_run_whose_end_could_not_be_stored_is_told_once_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flow_module, "RETRY_STORE_AFTER", (0.001,))
    store = Failing()
    async with Receiver() as receiver, calling(store=store) as (service, _):
        with pytest.raises(StoreUnavailable):
            await service.chat(inbound(webhook_url=receiver.url()), PUBLIC)
        assert receiver.calls.empty()
        store.down = False
        assert (await receiver.call()).verified()["status"] == "completed"


# Calls that fail.


@pytest.mark.parametrize("status", [408, 409, 425, 429, 500, 502, 503, 504])
async def test_a_call_that_may_succeed_later_is_made_again_as_the_same_webhook(
    status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Receiver(answer(status), answer(status), OK) as receiver, calling() as (service, webhooks):
        clock = iter((1_700_000_000.9, 1_700_000_001.0, 1_700_000_060.0))
        monkeypatch.setattr(module, "time", SimpleNamespace(time=clock.__next__))
        service.begin(inbound(webhook_url=receiver.url()), PUBLIC)
        first = await receiver.calls.get()
        assert webhooks.waiting == 1
        await until(webhooks, delivered=1)
        assert webhooks.waiting == 0
        calls = [first, *(receiver.calls.get_nowait() for _ in range(2))]
    assert [call.headers["webhook-timestamp"] for call in calls] == ["1700000000", "1700000001", "1700000060"]
    assert len({call.headers["webhook-signature"] for call in calls}) == 3
    assert len({(call.headers["webhook-id"], call.body) for call in calls}) == 1


@pytest.mark.parametrize("status", [300, 304, 400, 401, 404, 410, 422])
async def test_a_call_that_was_refused_is_not_made_again(status: int) -> None:
    async with Receiver(answer(status), OK) as receiver, calling() as (service, webhooks):
        service.begin(inbound(webhook_url=receiver.url()), PUBLIC)
        await until(webhooks, failed=1)
        assert receiver.calls.qsize() == 1


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_not_followed(status: int) -> None:
    async with (
        Receiver() as elsewhere,
        Receiver(answer(status, f"location: {elsewhere.url()}")) as receiver,
        calling() as (service, webhooks),
    ):
        service.begin(inbound(webhook_url=receiver.url()), PUBLIC)
        await until(webhooks, failed=1)
        assert receiver.calls.qsize() == 1
        assert elsewhere.calls.empty()


async def test_a_receiver_that_never_takes_it_is_given_up_after_the_last_call() -> None:
    async with Receiver(answer(500)) as receiver, calling(retry_after=(0, 0, 0)) as (service, webhooks):
        service.begin(inbound(webhook_url=receiver.url()), PUBLIC)
        await until(webhooks, failed=1)
        assert receiver.calls.qsize() == 4


async def test_a_connection_that_breaks_and_an_answer_that_is_none_are_called_again() -> None:
    async with Receiver(b"", b"HTTP/1.1 2", b"what?\r\n\r\n", OK) as receiver, calling() as (service, webhooks):
        service.begin(inbound(webhook_url=receiver.url()), PUBLIC)
        await until(webhooks, delivered=1)
        assert receiver.calls.qsize() == 4


async def test_a_receiver_that_is_not_there_yet_is_called_again() -> None:
    async with Receiver() as gone:
        pass
    async with calling(retry_after=(0.001,) * 1000) as (service, webhooks):
        service.begin(inbound(webhook_url=gone.url()), PUBLIC)
        await webhooks.flush(10)
        async with Receiver(port=gone.port):
            await until(webhooks, delivered=1)


async def test_a_receiver_that_does_not_answer_is_hung_up_on_and_called_again(monkeypatch: pytest.MonkeyPatch) -> None:
    async with Receiver(None, OK) as receiver, calling() as (service, webhooks):
        monkeypatch.setattr(module, "CALL_TIMEOUT", 0.05)
        service.begin(inbound(webhook_url=receiver.url()), PUBLIC)
        await receiver.call()
        monkeypatch.setattr(module, "CALL_TIMEOUT", 10.0)
        await until(webhooks, delivered=1)
        assert receiver.calls.qsize() == 1


async def test_an_answer_without_an_end_is_not_read() -> None:
    head = b"HTTP/1.1 200 OK\r\ncontent-length: 1000000000000\r\n\r\n"
    async with Receiver(head, endless=bytes(65536)) as receiver, calling() as (service, webhooks):
        service.begin(inbound(webhook_url=receiver.url()), PUBLIC)
        await until(webhooks, delivered=1)
        async with asyncio.timeout(30):
            await receiver.cut.wait()


async def test_headers_without_an_end_are_hung_up_on() -> None:
    head = b"HTTP/1.1 200 OK\r\nx-long: "
    async with Receiver(head, endless=b"a" * 65536) as receiver, calling(retry_after=()) as (service, webhooks):
        service.begin(inbound(webhook_url=receiver.url()), PUBLIC)
        await until(webhooks, failed=1)
        async with asyncio.timeout(30):
            await receiver.cut.wait()


@pytest.mark.parametrize(
    ("asked", "least", "most"),
    [
        ("60", 60, 66),
        ("Fri, 31 Dec 2999 23:59:59 GMT", 7200, 7920),
        ("9" * 500, 7200, 7920),
        ("Fri, 31 Dec 1999 23:59:59 GMT", 10, 11),
        ("3", 10, 11),
        ("soon", 10, 11),
        ("Fri, 31 Dec 1999 23:59:59 +99999999999999999999", 10, 11),
        ("-60", 10, 11),
    ],
)
async def test_a_receiver_is_left_alone_for_as_long_as_it_asks_within_bounds(
    asked: str, least: float, most: float, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "jimsapi.webhooks")
    store = MemoryStore()
    async with (
        Receiver(answer(429, f"retry-after: {asked}")) as receiver,
        calling(store=store, retry_after=(10,)) as (service, webhooks),
    ):
        service.begin(inbound(webhook_url=receiver.url()), PUBLIC)
        await receiver.call()
        await webhooks.flush(10)
        [webhook] = store.outbox._webhooks.values()
        assert least - 5 < (webhook.due_at - utc_now()).total_seconds() <= most
    assert "the answer was 429" in caplog.text


async def test_a_webhook_waits_for_a_store_that_does_not_answer_and_for_an_end_that_is_not_stored() -> None:
    class Unready(MemoryStore):
        down = 1

        async def run(self, run_id: UUID, acting_for: str | None, caller: UUID | None) -> StoredRun:
            if self.down:
                self.down -= 1
                raise StoreUnavailable("it is away")
            return await super().run(run_id, acting_for, caller)

    bot, store = Scripted(), Unready()
    async with Receiver() as receiver, calling(bot, store, retry_after=(0.001,) * 1000) as (service, webhooks):
        held = service.begin(inbound("hold on"), PUBLIC)
        await bot.reached["on"].wait()
        webhooks.put(held.run_id, receiver.url())
        await webhooks.flush(10)
        assert receiver.calls.empty()
        bot.opened["on"].set()
        assert (await receiver.call()).verified()["status"] == "completed"


async def test_nothing_is_told_of_a_run_that_was_deleted_meanwhile() -> None:
    async with Receiver(answer(500)) as receiver, calling(retry_after=(0.001,) * 1000) as (service, _):
        result = await service.chat(inbound(webhook_url=receiver.url()), PUBLIC)
        await receiver.call()
        await service.store.delete_thread(result.thread_id, None)
        async with asyncio.timeout(30):
            while await outbox_of(service.store).count_webhooks():
                await asyncio.sleep(0.001)
        calls = receiver.calls.qsize()
        await asyncio.sleep(0.05)
        assert receiver.calls.qsize() == calls


# Where no call may go.

PRIVATE = [
    "0.0.0.0", "0.1.2.3", "10.0.0.1", "100.64.0.1", "100.100.100.200", "127.0.0.1", "127.8.8.8", "168.63.129.16",
    "169.254.169.254", "172.16.0.1", "172.31.255.255", "192.0.0.1", "192.0.2.1", "192.88.99.1", "192.168.1.1",
    "198.18.0.1", "198.51.100.1", "203.0.113.1", "224.0.0.1", "239.1.1.1", "240.0.0.1", "255.255.255.255",
    "::", "::1", "::8.8.8.8", "::127.0.0.1", "100::1", "2001:db8::1", "2001::1", "2001:0:4136:e378:8000:63bf:3fff:fdd2",
    "3fff::1", "fc00::1", "fd00:ec2::254", "fe80::1", "fe80::1%1", "fec0::1", "ff02::1", "5f00::1",
    "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254", "::ffff:7f00:1",
    "64:ff9b::127.0.0.1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::8.8.8.8",
    "2002:7f00:1::", "2002:a00:1::1", "2002:a9fe:a9fe::",
]  # fmt: skip

PUBLIC_ADDRESSES = [
    "8.8.8.8", "100.63.255.255", "100.128.0.1", "172.32.0.1", "192.169.0.1", "223.255.255.254",
    "2606:4700:4700::1111", "2a00:1450::1", "64:ff9b::8.8.8.8", "::ffff:8.8.8.8",
]  # fmt: skip


@pytest.mark.parametrize("address", PRIVATE)
def test_an_address_that_is_not_everybodys_is_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", PUBLIC_ADDRESSES)
def test_other_addresses_are_public(address: str) -> None:
    assert is_public(address)


def fault_of(url: str, *, allow_private: bool = False) -> str:
    """Why a URL is refused; nothing if it is taken."""
    webhooks = Webhooks([KEY], MemoryStore(), told, allow_private=allow_private)
    try:
        webhooks.check(url)
    except InputRefused as refused:
        return f"{refused.field}: {refused.message}: {refused.value}"
    return ""


@pytest.mark.parametrize(
    ("url", "fault"),
    [
        ("http://hooks.example/", "https://"),
        ("ftp://hooks.example/", "https://"),
        ("file:///etc/passwd", "https://"),
        ("hooks.example", "https://"),
        ("", "https://"),
        ("https://", "host"),
        ("https:///hook", "host"),
        ("https://ann@hooks.example/", "no user"),
        ("https://ann:secret@hooks.example/", "no user"),
        ("https://hooks.example/" + "a" * 2000, "2000"),
        ("https://hooks.example:0/", "port"),
        ("https://hooks.example:65536/", "port"),
        ("https://hooks.example:port/", "not a URL"),
        ("https://hooks.example/\n", "not a URL"),
        ("https://[::1", "not a URL"),
        ("https://xn--/", "not a URL"),
        ("https://0177.0.0.1/", "not a URL"),
        ("https://127.0.0.1/", "public"),
        ("https://[::1]/", "public"),
        ("https://[::ffff:10.0.0.1]:8443/", "public"),
        ("https://[fe80::1%25eth0]/", ""),
    ],
)
def test_a_url_that_is_none_for_webhooks_is_refused_before_the_run(url: str, fault: str) -> None:
    found = fault_of(url)
    assert found.startswith("webhook_url: ")
    assert fault in found
    assert "secret" not in found
    assert found.endswith(": None")  # and the URL is not quoted beside it


@pytest.mark.parametrize("url", ["https://hooks.example", "https://hooks.example:8443/a?b=c#d", "https://8.8.8.8/"])
def test_other_urls_are_taken(url: str) -> None:
    assert not fault_of(url)


def test_where_private_addresses_are_allowed_calls_need_no_tls() -> None:
    assert not fault_of("http://127.0.0.1:8080/", allow_private=True)
    assert "no user" in fault_of("http://ann:secret@127.0.0.1/", allow_private=True)
    assert "https://" in fault_of("gopher://127.0.0.1/", allow_private=True)


@pytest.mark.parametrize("address", PRIVATE)
async def test_a_name_that_leads_to_a_private_address_is_not_called(address: str) -> None:
    names = Names([address])
    async with calling(allow_private=False, resolver=names) as (service, webhooks):
        service.begin(inbound(webhook_url="https://hooks.example/"), PUBLIC)
        await until(webhooks, refused=1)
        assert names.asked == [("hooks.example", 443)]


@pytest.mark.parametrize("host", ["localhost", "127.1", "2130706433", "0x7f000001"])
async def test_the_names_of_this_machine_are_not_called(host: str) -> None:
    async with Receiver() as receiver, calling(allow_private=False) as (service, webhooks):
        service.begin(inbound(webhook_url=f"https://{host}:{receiver.port}/"), PUBLIC)
        await until(webhooks, refused=1)


async def test_a_private_address_among_public_ones_is_left_out(
    authority: trustme.CA, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "is_public", lambda address: ip_address(address) == IPv4Address("127.0.0.1"))
    async with (
        Receiver(host="127.0.0.2", tls=server_context(authority, "hooks.example")) as private,
        Receiver(port=private.port, tls=server_context(authority, "hooks.example")) as receiver,
        calling(allow_private=False, resolver=Names(["127.0.0.2", "127.0.0.1"])) as (service, webhooks),
    ):
        service.begin(inbound(webhook_url=receiver.url("hooks.example")), PUBLIC)
        await until(webhooks, delivered=1)
        assert receiver.calls.qsize() == 1
        assert private.calls.empty()


async def test_a_name_is_asked_for_once_a_call_and_the_answer_that_was_looked_at_is_the_one_that_is_called(
    authority: trustme.CA, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "is_public", lambda address: ip_address(address) == IPv4Address("127.0.0.1"))
    names = Names(["127.0.0.1"], ["127.0.0.2"])
    async with (
        Receiver(answer(503), OK, tls=server_context(authority, "hooks.example")) as receiver,
        Receiver(host="127.0.0.2", port=receiver.port, tls=server_context(authority, "hooks.example")) as private,
        calling(allow_private=False, resolver=names) as (service, webhooks),
    ):
        service.begin(inbound(webhook_url=receiver.url("hooks.example")), PUBLIC)
        await until(webhooks, refused=1)  # the second call, for which the name led elsewhere
        assert receiver.calls.qsize() == 1
        assert private.calls.empty()
        assert len(names.asked) == 2


async def test_a_webhook_of_an_earlier_process_is_held_to_this_ones_options() -> None:
    async with Receiver() as receiver, calling(allow_private=False) as (service, webhooks):
        webhooks.put(await a_run(service), receiver.url())
        assert webhooks.outcomes == {"refused": 1}
        assert receiver.calls.empty()


# TLS.


def server_context(authority: trustme.CA, name: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(context)
    return context


@pytest.fixture
def authority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> trustme.CA:
    """Whom the machine trusts."""
    made = trustme.CA()
    made.cert_pem.write_to_path(tmp_path / "authorities.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authorities.pem"))
    return made


@pytest.mark.parametrize("host", ["hooks.example", "hooks.example."])
async def test_tls_asks_for_the_host_by_its_name_and_holds_the_certificate_to_it(
    authority: trustme.CA, host: str
) -> None:
    async with (
        Receiver(tls=server_context(authority, "hooks.example")) as receiver,
        calling(resolver=Names(["127.0.0.1"]), retry_after=()) as (service, webhooks),
    ):
        service.begin(inbound(webhook_url=receiver.url(host)), PUBLIC)
        await until(webhooks, delivered=1)
        call = receiver.calls.get_nowait()
    assert call.server_name == "hooks.example"
    assert call.headers["host"] == f"{host}:{receiver.port}"


@pytest.mark.parametrize("trusted", [True, False])
async def test_a_certificate_of_another_host_or_authority_is_not_told_anything(
    authority: trustme.CA, trusted: bool
) -> None:
    context = server_context(authority, "other.example") if trusted else server_context(trustme.CA(), "hooks.example")
    async with (
        Receiver(tls=context) as receiver,
        calling(resolver=Names(["127.0.0.1"]), retry_after=(0,)) as (service, webhooks),
    ):
        service.begin(inbound(webhook_url=receiver.url("hooks.example")), PUBLIC)
        await until(webhooks, failed=1)
        assert receiver.calls.empty()


async def test_a_connection_is_not_used_for_another_host_at_the_same_address(authority: trustme.CA) -> None:
    keeps_open = b"HTTP/1.1 200 OK\r\nconnection: keep-alive\r\ncontent-length: 0\r\n\r\n"
    async with (
        Receiver(keeps_open, tls=server_context(authority, "hooks.example")) as receiver,
        calling(resolver=Names(["127.0.0.1"]), retry_after=()) as (service, webhooks),
    ):
        run_id = await a_run(service)
        webhooks.put(run_id, receiver.url("hooks.example"))
        await until(webhooks, delivered=1)
        webhooks.put(run_id, receiver.url("other.example"))
        await until(webhooks, delivered=1, failed=1)
        assert receiver.calls.qsize() == 1


async def test_the_next_address_of_a_host_is_called_where_the_first_does_not_connect() -> None:
    async with (
        Receiver() as receiver,
        calling(resolver=Names(["127.0.0.9", "127.0.0.1"]), retry_after=()) as (service, webhooks),
    ):
        service.begin(inbound(webhook_url=receiver.url("hooks.example")), PUBLIC)
        await until(webhooks, delivered=1)


async def test_a_name_that_leads_nowhere_is_asked_for_again() -> None:
    async def nowhere(host: str, port: int) -> Sequence[str]:
        asked.append(host)
        raise OSError("no such name")

    asked: list[str] = []
    async with calling(resolver=nowhere, retry_after=(0, 0)) as (service, webhooks):
        service.begin(inbound(webhook_url="https://hooks.example/"), PUBLIC)
        await until(webhooks, failed=1)
    assert asked == ["hooks.example"] * 3


# Bounds.


async def test_a_host_that_is_slow_takes_no_more_than_its_share() -> None:
    async with (
        Receiver(None) as slow,
        Receiver() as quick,
        calling(resolver=Names(["127.0.0.1"])) as (service, webhooks),
    ):
        run_id = await a_run(service)
        for _ in range(30):
            webhooks.put(run_id, slow.url("slow.example"))
        for _ in range(5):
            webhooks.put(run_id, quick.url("quick.example"))
        await until(webhooks, delivered=5)
        assert slow.calls.qsize() == module.CALLS_AT_ONCE_TO_A_HOST


async def test_names_that_nobody_answers_for_keep_no_others_from_being_looked_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answered = threading.Event()
    look_up = socket.getaddrinfo

    def slow(host: str, *more: Any, **named: Any) -> Any:
        if host.endswith(".slow.example"):
            answered.wait()
            raise socket.gaierror
        return look_up(host, *more, **named)

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    try:
        async with Receiver() as receiver, calling(retry_after=()) as (service, webhooks):
            run_id = await a_run(service)
            with monkeypatch.context() as hasty:
                hasty.setattr(module, "CALL_TIMEOUT", 0.1)
                for number in range(module.CALLS_AT_ONCE):
                    webhooks.put(run_id, f"http://{number}.slow.example/")
                await until(webhooks, failed=module.CALLS_AT_ONCE)
            webhooks.put(run_id, receiver.url())
            await until(webhooks, failed=module.CALLS_AT_ONCE, delivered=1)
    finally:
        answered.set()


async def test_no_more_calls_are_open_at_once_than_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CALLS_AT_ONCE", 3)
    async with Receiver(None) as slow, calling(resolver=Names(["127.0.0.1"])) as (service, webhooks):
        run_id = await a_run(service)
        for number in range(9):
            webhooks.put(run_id, slow.url(f"host-{number}.example"))
        came = [await slow.call() for _ in range(3)]
        assert {call.headers["host"].partition(".")[0] for call in came} == {"host-0", "host-1", "host-2"}
        await webhooks.flush(0.05)
        assert slow.calls.empty()


async def test_beyond_the_limit_webhooks_wait_in_the_store_until_there_is_room(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(module, "PENDING_LIMIT", 2)
    monkeypatch.setattr(module, "LOOK_EVERY", 0.01)
    async with Receiver() as receiver, calling(store=make_store("sqlite", tmp_path)) as (service, webhooks):
        runs = [service.begin(inbound(contact=f"{n}", webhook_url=receiver.url()), PUBLIC) for n in range(30)]
        called = {(await receiver.call()).verified()["run_id"] for _ in runs}
        assert called == {str(run.run_id) for run in runs}
        await until(webhooks, delivered=30)
        assert await outbox_of(service.store).count_webhooks() == 0


async def test_one_host_cannot_take_all_the_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PENDING_OF_A_HOST", 2)
    monkeypatch.setattr(module, "PENDING_LIMIT", 4)
    names = Names(["127.0.0.1"])
    async with Receiver(None) as slow, Receiver() as quick, calling(resolver=names) as (service, webhooks):
        for number in range(10):
            await service.chat(inbound(contact=f"{number}", webhook_url=slow.url("slow.example")), PUBLIC)
        assert webhooks.waiting == 2
        await service.chat(inbound(webhook_url=quick.url("quick.example")), PUBLIC)
        await until(webhooks, delivered=1)


async def test_a_host_that_was_called_leaves_nothing_behind() -> None:
    async with Receiver() as receiver, calling(resolver=Names(["127.0.0.1"])) as (service, webhooks):
        run_id = await a_run(service)
        for number in range(20):
            webhooks.put(run_id, receiver.url(f"{number}.example"))
        await until(webhooks, delivered=20)
        assert not webhooks._of_hosts
        async with asyncio.timeout(30):
            while webhooks._calls:
                await asyncio.sleep(0.001)


async def test_without_an_outbox_webhooks_beyond_the_limit_are_dropped_and_counted(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "PENDING_LIMIT", 2)
    store = MemoryStore()
    async with Receiver(answer(500)) as receiver, calling(store=store, retry_after=(3600,)) as (service, webhooks):
        webhooks._outbox = None  # as a store without one
        run_id = await a_run(service)
        for _ in range(3):
            webhooks.put(run_id, receiver.url(target="/?token=hidden"))
        assert webhooks.outcomes == {"dropped": 1}
        assert f"run {run_id}: its webhook at 127.0.0.1 is dropped: too many wait" in caplog.messages
        await webhooks.flush(10)
        webhooks.put(run_id, receiver.url())  # those that wait for another call count as well
        assert webhooks.outcomes == {"dropped": 2}


async def test_a_webhook_holds_up_neither_its_run_nor_the_next() -> None:
    async with Receiver(None) as receiver, calling() as (service, _):
        first = await service.chat(inbound(webhook_url=receiver.url()), PUBLIC)
        second = await service.chat(inbound("again", webhook_url=receiver.url()), PUBLIC)
        assert first.thread_id == second.thread_id
        assert not service.open_runs


# The end of the process.


async def test_a_drain_gives_first_calls_a_moment_and_interrupted_runs_are_told() -> None:
    bot = Scripted()
    async with Receiver() as receiver, calling(bot) as (service, webhooks):
        service.begin(inbound("hold on", webhook_url=receiver.url()), PUBLIC)
        await bot.reached["on"].wait()
        await service.drain(0)
        assert receiver.calls.get_nowait().verified()["status"] == "interrupted"
        assert webhooks.outcomes == {"delivered": 1}


async def test_a_drain_waits_for_no_second_call_and_what_is_left_is_dropped(caplog: pytest.LogCaptureFixture) -> None:
    async with Receiver(answer(500)) as receiver, calling(retry_after=(3600,)) as (service, webhooks):
        for contact in ("ann", "bob"):
            await service.chat(inbound(contact=contact, webhook_url=receiver.url()), PUBLIC)
        await webhooks.flush(3600)
        assert receiver.calls.qsize() == 2
    assert webhooks.outcomes == {"dropped": 2}
    assert "dropped undelivered webhooks at shutdown: 2; they will not be retried" in caplog.messages


async def test_what_a_process_has_not_called_is_called_after_the_next_start(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO, "jimsapi.webhooks")
    async with calling(store=make_store("sqlite", tmp_path)) as (service, webhooks):
        monkeypatch.setattr(module, "CALLS_AT_ONCE", 0)  # so it waits
        run = service.begin(inbound(webhook_url="http://127.0.0.1:9/"), PUBLIC)
        await run.wait_for_answer()
        await ended(service)
        assert webhooks.waiting == 1
    assert not webhooks.outcomes
    assert "undelivered webhooks at shutdown: 1; another process, or the next start, calls them" in caplog.messages
    monkeypatch.setattr(module, "CALLS_AT_ONCE", 16)
    async with calling(store=make_store("sqlite", tmp_path), retry_after=()) as (_, webhooks):
        await until(webhooks, failed=1)


async def test_a_start_leaves_the_pause_of_a_webhook_that_was_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LOOK_EVERY", 0.01)
    async with Receiver(answer(503, "retry-after: 7200"), OK) as receiver:
        for _ in range(3):
            async with calling(store=make_store("sqlite", tmp_path), retry_after=(3600,) * 6) as (service, webhooks):
                if receiver.calls.empty():
                    await service.chat(inbound(webhook_url=receiver.url()), PUBLIC)
                await webhooks.flush(10)
                await asyncio.sleep(0.1)
        assert receiver.calls.qsize() == 1
        assert not webhooks.outcomes


async def test_what_a_process_has_not_called_is_called_by_another_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOOK_EVERY", 0.01)
    store = MemoryStore()
    monkeypatch.setattr(store.outbox, "lasting", True)
    async with Receiver() as receiver, calling(store=store) as (_, other):
        async with calling(store=store) as (service, webhooks):
            with monkeypatch.context() as busy:
                busy.setattr(module, "CALLS_AT_ONCE", 0)
                await service.chat(inbound(webhook_url=receiver.url()), PUBLIC)
                await ended(service)
                assert webhooks.waiting == 1
                await webhooks.stop()
        await until(other, delivered=1)
    assert receiver.calls.qsize() == 1
    assert not webhooks.outcomes


async def test_a_caller_whose_receiver_is_down_takes_no_room_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"PENDING_LIMIT": 10, "PENDING_OF_A_HOST": 4, "LOOK_EVERY": 0.01}.items():
        monkeypatch.setattr(module, name, value)
    names = Names(["127.0.0.1"])
    async with (
        Receiver(answer(500)) as down,
        Receiver() as works,
        calling(resolver=names, retry_after=(3600,)) as (service, webhooks),
    ):
        for number in range(40):
            url = down.url(f"{number % 8}.down.example")
            await service.chat(inbound(contact=f"{number}", webhook_url=url), caller("busy"))
        await service.chat(inbound(webhook_url=works.url("works.example")), caller("other"))
        await until(webhooks, delivered=1)


async def test_the_runs_that_a_dead_process_left_open_are_told_by_the_next_one(tmp_path: Path) -> None:
    async with Receiver() as receiver:
        async with make_store("sqlite", tmp_path) as store:
            accepted = make_plan(webhook_url=receiver.url())
            await store.accept(accepted)
        async with calling(store=make_store("sqlite", tmp_path)) as (_, webhooks):
            call = (await receiver.call()).verified()
            assert call == {"run_id": str(accepted.run_id), "status": "interrupted"}
            await until(webhooks, delivered=1)


async def test_a_receiver_that_does_not_answer_holds_up_no_drain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service_module, "FLUSH_WITHIN", 0.05)
    async with Receiver(None) as receiver, calling() as (service, webhooks):
        await service.chat(inbound(webhook_url=receiver.url()), PUBLIC)
        await receiver.call()
        async with asyncio.timeout(30):
            await service.drain(20)
    assert webhooks.outcomes == {"dropped": 1}


async def test_neither_secrets_nor_more_of_a_url_than_its_host_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with (
        Receiver(b"HTTP/1.1 2", b"/hidden\r\n\r\n", answer(500)) as receiver,
        calling(resolver=Names(["127.0.0.1"]), retry_after=(0, 0, 0)) as (service, webhooks),
    ):
        url = receiver.url("hooks.example", "/hidden?hidden=1")
        run = service.begin(inbound(webhook_url=url), PUBLIC)
        await until(webhooks, failed=1)
    assert (
        f"run {run.run_id}: its webhook at hooks.example is given up after 4 calls: the answer was 500" in caplog.text
    )
    ours = "\n".join(record.getMessage() for record in caplog.records if record.name.startswith("jimsapi"))
    assert "hidden" not in ours
    assert KEY.decode() not in caplog.text
    assert "/hidden?hidden=1" not in caplog.text
