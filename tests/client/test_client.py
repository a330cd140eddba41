"""Both clients, and a real server."""

import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from pathlib import Path
from uuid import UUID, uuid4

import anyio
import httpx
import msgspec
import pytest
import trustme
from anyio import to_thread

from jimsapi.client import (
    Activity,
    AsyncClient,
    Client,
    ClientError,
    Conflict,
    Delta,
    Event,
    Gap,
    InvalidRequest,
    Item,
    NotFound,
    Reasoning,
    Result,
    RunFailed,
    RunFault,
    Started,
    Status,
    Unauthorized,
    Unavailable,
    Unreachable,
)
from tests.client.both import KINDS, Both
from tests.serving import ROOT, Served

pytestmark = pytest.mark.anyio

KEY = "the-clients-key"
ODD_URLS = (
    "http://xn--/",
    "http://a..b",
    "http://example.org/\ud800",
    "http://example.org/?a=b",
    "http://example.org#a",
)
NOBODY = "0192b5f2-2c03-7b91-9c6c-9a1234567890"


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with Served("--app", "tests.apps.scripted:app", "--api-key", KEY) as server:
        yield server


@pytest.fixture(params=KINDS)
async def client(served: Served, request: pytest.FixtureRequest) -> AsyncIterator[Both]:
    async with Both(request.param, served.url, api_key=KEY) as client:
        yield client


@pytest.fixture
def contact() -> str:
    return f"contact {uuid4()}"


async def collect(items: AsyncIterator[Item]) -> list[Item]:
    return [item async for item in items]


async def test_a_message_is_answered(client: Both, contact: str) -> None:
    result = await client.chat("event Seen; send Hello", contact_id=contact)
    assert result.assistant_messages == ["Hello"]
    assert [(event.event_type, event.event_data) for event in result.events] == [
        ("rag.step", {"text": "Seen"}),
        ("comm.assistant_message", {"role": "assistant", "content": "Hello"}),
    ]
    assert result.created_new_thread is True
    again = await client.chat("see", contact_id=contact)
    assert (again.thread_id, again.created_new_thread) == (result.thread_id, False)
    run = await client.run(again.run_id or "")
    assert (run.status, run.result) == ("completed", again)


async def test_what_is_said_with_a_message_reaches_the_server(client: Both, contact: str) -> None:
    thread_id = (await client.chat("hi", contact_id=contact)).thread_id
    result = await client.chat("see", contact_id=contact, thread_id=thread_id, event_type="comm.user_action")
    assert (result.thread_id, result.created_new_thread) == (thread_id, False)
    greeting = {"greet": "raise no greeting"}
    with pytest.raises(RunFailed, match="no greeting"):
        await client.chat(
            "hi", contact_id=f"new {contact}", thread_config=greeting, run_conversation_start_on_new_thread=True
        )
    with pytest.raises(InvalidRequest, match="webhook_url"):
        await client.begin("hi", contact_id=contact, webhook_url="no URL")


async def test_a_stream_tells_what_happens_as_it_happens(client: Both, contact: str) -> None:
    items = client.stream("status Looking; stream Hel; hold door; stream lo", contact_id=contact)
    started = await anext(items)
    assert isinstance(started, Started)
    assert await anext(items) == Status(status="Looking", type="step", id="2")
    first = await anext(items)
    assert isinstance(first, Delta)
    await client.chat("open door", contact_id=f"opener of {contact}")
    second, event, result = await collect(items)
    assert isinstance(event, Event)
    assert second == Delta(message_id=first.message_id, content="lo", id="4")
    assert (event.event_id, event.event_data["content"], event.id) == (first.message_id, "Hello", "5")
    assert isinstance(result, Result)
    assert (result.assistant_messages, result.run_id, result.id) == (["Hello"], started.run_id, "end")


async def test_a_stream_tells_what_an_agent_does(client: Both, contact: str) -> None:
    items = await collect(client.stream("think They ask; tool search; send Hello", contact_id=contact))
    assert [type(item) for item in items[1:-1]] == [Reasoning, Activity, Activity, Delta, Event, Event, Event]
    _, reasoning, begun, ended, _, *events, _ = items
    assert isinstance(reasoning, Reasoning)
    assert isinstance(begun, Activity)
    assert isinstance(ended, Activity)
    stored = {event.event_id: event for event in events if isinstance(event, Event)}
    assert (reasoning.content, reasoning.id) == ("They ask", "2")
    assert stored[reasoning.event_id].event_data == {"content": "They ask"}
    assert (begun.event_type, begun.event_data["name"], "result" in begun.event_data) == ("tool.call", "search", False)
    assert stored[begun.event_id].event_data == ended.event_data
    assert ended.event_data["result"] == "search"


async def test_a_run_goes_on_without_who_began_it_and_can_be_watched_from_any_place(client: Both, contact: str) -> None:
    begun = await client.begin(f"hold {contact}; status Looking; send Hello", contact_id=contact)
    assert begun.status in ("queued", "running")
    assert begun.result is None
    await client.chat(f"reached {contact}; open {contact}", contact_id=f"opener of {contact}")
    whole = await collect(client.watch(begun.run_id))
    assert [type(item) for item in whole] == [Started, Status, Delta, Event, Result]
    assert await collect(client.watch(str(begun.run_id), after=whole[1].id)) == whole[2:]
    assert await collect(client.watch(begun.run_id, after="end")) == []
    done = await client.run(begun.run_id)
    assert done.result is not None
    assert (done.status, done.thread_id, done.result.assistant_messages) == ("completed", begun.thread_id, ["Hello"])
    assert done.accepted_at is not None
    assert done.started_at is not None
    assert done.finished_at is not None


async def test_what_nobody_heard_is_a_gap(client: Both, contact: str) -> None:
    message = f"stream Hel; hold {contact}; stream lo"
    async with anyio.create_task_group() as tasks:

        async def ask() -> None:
            answers.append(await client.chat(message, contact_id=contact, idempotency_key=contact))

        answers: list[Result] = []
        tasks.start_soon(ask)
        await client.chat(f"reached {contact}", contact_id=f"opener of {contact}")
        items = client.stream(message, contact_id=contact, idempotency_key=contact)
        assert isinstance(await anext(items), Started)
        assert await anext(items) == Gap(missed=None, id="2")
        await client.chat(f"open {contact}", contact_id=f"opener of {contact}")
        *_, event, result = await collect(items)
    assert isinstance(event, Event)
    assert event.event_data["content"] == "Hello"
    assert result == msgspec.structs.replace(answers[0], id="end")


async def test_leaving_a_stream_early_does_not_stop_its_run(client: Both, served: Served, contact: str) -> None:
    async with (
        AsyncClient(served.url, api_key=KEY) as other,
        aclosing(other.stream(f"hold {contact}; send Hello", contact_id=contact)) as items,
    ):
        started = await anext(items)
    assert isinstance(started, Started)
    await client.chat(f"open {contact}", contact_id=f"opener of {contact}")
    assert isinstance((await collect(client.watch(started.run_id)))[-1], Result)


async def test_a_run_is_cancelled(client: Both, contact: str) -> None:
    items = client.stream("status Waiting; hold nothing", contact_id=contact)
    started = await anext(items)
    assert isinstance(started, Started)
    assert (await client.cancel(started.run_id)).status == "cancelled"
    with pytest.raises(Conflict, match="cancelled") as raised:
        await collect(items)
    assert (raised.value.status, raised.value.run_id) == (409, started.run_id)
    run = await client.run(started.run_id)
    assert (run.status, run.error) == ("cancelled", RunFault("The run was cancelled", 409))
    answered = await client.chat("see", contact_id=contact)
    with pytest.raises(Conflict, match="completed"):
        await client.cancel(answered.run_id or "")


async def test_a_pipeline_that_fails_is_the_same_error_by_chat_and_by_stream(client: Both, contact: str) -> None:
    with pytest.raises(RunFailed, match="500: Pipeline error: the roof") as chatted:
        await client.chat("stream Hel; raise the roof", contact_id=contact)
    items = client.stream("stream Hel; raise the roof", contact_id=contact)
    told = [await anext(items), await anext(items)]
    assert [type(item) for item in told] == [Started, Delta]
    with pytest.raises(RunFailed, match="500: Pipeline error: the roof") as streamed:
        await anext(items)
    assert chatted.value.run_id is not None
    assert streamed.value.run_id == told[0].run_id  # type: ignore[union-attr] # it is the `Started`


async def test_refusals_are_raised_at_once_by_their_kind(client: Both, served: Served, contact: str) -> None:
    with pytest.raises(NotFound):
        await client.chat("hi", contact_id=contact, thread_id=NOBODY)
    with pytest.raises(NotFound):
        await collect(client.stream("hi", contact_id=contact, thread_id=UUID(NOBODY)))
    with pytest.raises(NotFound):
        await collect(client.watch(NOBODY))
    with pytest.raises(InvalidRequest, match=r"body\.contact_id: .*required"):
        await client.chat("hi")
    async with Both("sync", served.url, api_key="another-key-of-nobody") as stranger:
        with pytest.raises(Unauthorized):
            await stranger.chat("hi", contact_id=contact)


async def test_a_key_is_answered_once_and_for_one_message(client: Both, contact: str) -> None:
    first = await client.chat("hi", contact_id=contact, idempotency_key=contact)
    assert await client.chat("hi", contact_id=contact, idempotency_key=contact) == first
    streamed = (await collect(client.stream("hi", contact_id=contact, idempotency_key=contact)))[-1]
    assert isinstance(streamed, Result)
    assert streamed.run_id == first.run_id
    with pytest.raises(InvalidRequest, match="another request"):
        await client.chat("ho", contact_id=contact, idempotency_key=contact)


async def test_an_answer_that_takes_longer_than_one_request_may_is_found_by_the_next(
    served: Served, contact: str
) -> None:
    async with AsyncClient(served.url, api_key=KEY, timeout=1.0) as hasty, anyio.create_task_group() as tasks:

        async def ask() -> None:
            answers.append(await hasty.chat(f"hold {contact}; see", contact_id=contact))

        answers: list[Result] = []
        tasks.start_soon(ask)
        async with AsyncClient(served.url, api_key=KEY) as other:
            await other.chat(f"reached {contact}", contact_id=f"opener of {contact}")
            await anyio.sleep(1.5)  # so that the first request has timed out
            await other.chat(f"open {contact}", contact_id=f"opener of {contact}")
    assert answers[0].assistant_messages == [f'["hold {contact}; see"]']


async def test_nobody_there_is_told_with_what_to_do() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        for kind in KINDS:
            async with Both(kind, url, attempts=1) as client:
                with pytest.raises(Unreachable, match="is it running, and is the URL right"):
                    await client.chat("hi")
                with pytest.raises(Unreachable):
                    await collect(client.stream("hi"))


@pytest.mark.parametrize("kind", KINDS)
async def test_a_server_that_is_not_ours_is_told_as_such(kind: str) -> None:
    async def answer(reader: anyio.abc.SocketStream) -> None:
        async with reader:
            await reader.receive()
            await reader.send(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: close\r\n\r\nhello")

    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    url = f"http://127.0.0.1:{listener.extra(anyio.abc.SocketAttribute.local_port)}"
    async with listener, anyio.create_task_group() as tasks, Both(kind, url) as client:
        tasks.start_soon(listener.serve, answer)
        with pytest.raises(ClientError, match="check the URL"):
            await client.chat("hi")
        with pytest.raises(ClientError, match="check the URL"):
            await collect(client.stream("hi"))
        tasks.cancel_scope.cancel()


@pytest.mark.parametrize("kind", KINDS)
async def test_a_server_is_not_listened_to_behind_the_last_item(kind: str) -> None:
    result = b'{"thread_id":"%s","created_new_thread":false,"assistant_messages":[],"events":[]}' % NOBODY.encode()
    cut = anyio.Event()

    async def answer(reader: anyio.abc.SocketStream) -> None:
        async with reader:
            await reader.receive()
            await reader.send(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n")
            await reader.send(b"event: result\nid: end\ndata: %s\n\n" % result)
            try:
                for _ in range(200):
                    await reader.send(b": more\n\n")
                    await anyio.sleep(0.01)
            except anyio.BrokenResourceError:
                cut.set()

    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    url = f"http://127.0.0.1:{listener.extra(anyio.abc.SocketAttribute.local_port)}"
    async with listener, anyio.create_task_group() as tasks, Both(kind, url) as client:
        tasks.start_soon(listener.serve, answer)
        with anyio.fail_after(30):
            assert [type(item) for item in await collect(client.stream("hi"))] == [Result]
            await cut.wait()
        tasks.cancel_scope.cancel()


async def test_a_run_whose_server_dies_is_told_as_interrupted_and_its_key_begins_it_anew(
    tmp_path: Path, contact: str
) -> None:
    with Served("--app", "tests.apps.scripted:app", "--store", f"sqlite:///{tmp_path}/threads.db") as server:
        async with AsyncClient(server.url) as client:
            items = client.stream("hold door; see", contact_id=contact, idempotency_key=contact)
            started = await anext(items)
            assert isinstance(started, Started)
            server.stop(signal.SIGKILL)
            server.command += ["--port", str(server.port)]
            await to_thread.run_sync(server.start)
            with pytest.raises(Unavailable, match="interrupted") as raised:
                await collect(items)
            assert raised.value.run_id == started.run_id
            anew = await client.begin("hold door; see", contact_id=contact, idempotency_key=contact)
            await client.chat("open door", contact_id=f"opener of {contact}")
            result = (await collect(client.watch(anew.run_id)))[-1]
    assert anew.run_id != started.run_id
    assert isinstance(result, Result)
    assert result.assistant_messages == ['["hold door; see"]']


def test_the_url_and_the_key_are_looked_at_first() -> None:
    for url in ("example.org", "ftp://example.org", "http://", "http://exa mple.org:x", *ODD_URLS):
        with pytest.raises(ValueError, match="URL"):
            Client(url)
    for key in ("", "two\nlines", "é"):
        with pytest.raises(ValueError, match="API key") as raised:
            AsyncClient("http://example.org", api_key=key)
        assert "lines" not in str(raised.value)


def test_a_client_of_one_s_own_brings_certificates_and_is_left_open(tmp_path: Path) -> None:
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    chain, root = tmp_path / "chain.pem", tmp_path / "root.pem"
    certificate.private_key_and_cert_chain_pem.write_to_path(str(chain))
    authority.cert_pem.write_to_path(str(root))
    with Served("--ssl-certfile", str(chain)) as server:
        url = server.url.replace("http:", "https:")
        with Client(url) as stranger, pytest.raises(Unreachable, match="certificate"):
            stranger.chat("hi", contact_id="ann")
        with httpx.Client(verify=ssl.create_default_context(cafile=str(root))) as own:
            with Client(url, http=own) as client:
                assert client.chat("hi", contact_id="ann").assistant_messages == ["You said: hi"]
            assert not own.is_closed


def test_importing_it_starts_nothing() -> None:
    code = "import jimsapi.client, sys, threading; print(threading.active_count(), 'uvicorn' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ran.stdout.split() == ["1", "False"]


def test_the_async_client_runs_on_trio(served: Served) -> None:
    async def ask() -> list[Item]:
        async with AsyncClient(served.url, api_key=KEY) as client:
            return [item async for item in client.stream("send Hello", contact_id="trio")]

    assert isinstance(anyio.run(ask, backend="trio")[-1], Result)
