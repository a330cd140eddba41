"""Resuming an answer that is being written, over real sockets: who may do it, and which answer it is."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from urllib.parse import quote
from uuid import uuid4

import httpx
import pytest

from tests.plugins.distributions import install
from tests.serving import ROOT, Served
from tests.waiting import eventually

CHAT = "/ai-sdk/chat"
DONE = "data: [DONE]\n\n"


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A client of a server with a few users. Requests are from `root` unless a header names another user."""
    folder = tmp_path_factory.mktemp("users")
    install(folder, "jimsapi-users", (ROOT / "tests" / "apps" / "jimsapi_users.py").read_text())
    options = ("--app", "tests.apps.scripted:app", "--vercel-contact-header", "x-person")
    with Served(*options, folder=folder) as server, server.client(headers={"x-user": "root"}) as client:
        yield client


@contextmanager
def sent(client: httpx.Client, chat: str, message: str, **headers: str) -> Iterator[httpx.Response]:
    """The answer to a message. Its headers are read, its body is not."""
    parts = [{"type": "text", "text": message}]
    body = {"id": chat, "messages": [{"id": "1", "role": "user", "parts": parts}]}
    with client.stream("POST", CHAT, json=body, headers=headers) as answer:
        assert answer.status_code == 200
        yield answer


@contextmanager
def resumed(client: httpx.Client, chat: str, **headers: str) -> Iterator[httpx.Response]:
    with client.stream("GET", f"{CHAT}/{quote(chat, safe='')}/stream", headers=headers) as answer:
        yield answer


def do(client: httpx.Client, message: str) -> None:
    """Send a message in another conversation."""
    assert client.post("/api/v1/chat", json={"contact_id": "other", "message": message}).status_code == 200


def status(client: httpx.Client, chat: str, **headers: str) -> int:
    with resumed(client, chat, **headers) as answer:
        return answer.status_code


def test_it_is_told_from_its_beginning(client: httpx.Client) -> None:
    chat, door = f"a/ü %2F?{uuid4()}", str(uuid4())
    with sent(client, chat, f"status Looking; stream Hel; hold {door}; stream lo; event e") as first:
        do(client, f"reached {door}")
        with resumed(client, chat) as second:
            assert second.headers["x-vercel-ai-ui-message-stream"] == "v1"
            assert second.headers["x-run-id"] == first.headers["x-run-id"]
            do(client, f"open {door}")
            told = second.read()
        assert told == first.read()
    assert told.decode().endswith(DONE)
    assert [word in told for word in (b"Looking", b"Hel", b"data-rag.step")] == [True] * 3


def test_of_several_that_wait_the_newest_is_resumed(client: httpx.Client) -> None:
    chat, door = str(uuid4()), str(uuid4())
    with ExitStack() as stack:
        answers = [stack.enter_context(sent(client, chat, f"{step} {door}")) for step in ("hold", "send", "stream")]
        with resumed(client, chat) as newest:
            assert newest.headers["x-run-id"] == answers[-1].headers["x-run-id"]
            do(client, f"open {door}")
            assert newest.read() == answers[-1].read()


def test_an_older_one_that_ends_takes_nothing_from_the_newest(client: httpx.Client) -> None:
    chat, first_door, second_door = (str(uuid4()) for _ in range(3))
    with sent(client, chat, f"hold {first_door}") as first, sent(client, chat, f"hold {second_door}; send b") as second:
        do(client, f"open {first_door}")
        first.read()
        with resumed(client, chat) as newest:
            do(client, f"open {second_door}")
            assert newest.read() == second.read()


def test_who_left_finds_it_and_nobody_else_does(client: httpx.Client) -> None:
    chat, door = str(uuid4()), str(uuid4())
    ann = {"x-person": "ann"}
    with sent(client, chat, f"hold {door}; send of ann", **ann):
        pass
    do(client, f"reached {door}")
    others: list[dict[str, str]] = [
        {}, {"x-person": "bea"}, {"x-user": "ann"}, {"x-user": "bea"}, {"x-user": "talker", "x-person": "ann"}
    ]  # fmt: skip
    assert [status(client, chat, **other) for other in others] == [204] * len(others)
    with resumed(client, chat, **ann) as answer:
        do(client, f"open {door}")
        assert b"of ann" in answer.read()


def test_nothing_is_resumed_where_nothing_is_under_way(client: httpx.Client) -> None:
    chat = str(uuid4())
    assert status(client, chat) == 204
    with sent(client, chat, "send hi") as answer:
        answer.read()
    assert status(client, chat) == 204
    assert status(client, "a\0b") == 204
    assert status(client, "x" * 10_000) == 204


def test_who_comes_when_the_beginning_is_kept_no_more_is_told_the_whole_message(client: httpx.Client) -> None:
    chat, door = str(uuid4()), str(uuid4())
    words = [f"{number}." for number in range(1500)]
    steps = [*(f"stream {word}" for word in words), f"hold {door}", "stream the end"]
    with sent(client, chat, "; ".join(steps)) as first:
        do(client, f"reached {door}")
        with resumed(client, chat) as answer:
            do(client, f"open {door}")
            told = answer.read().decode()
        first.read()
    assert told.count("text-start") == told.count("text-delta") == told.count("text-end") == 1
    assert f'"delta":"{"".join(words)}the end"' in told
    assert told.endswith(DONE)


def run_status(client: httpx.Client, run_id: str) -> str:
    shown: dict[str, str] = client.get(f"/api/v1/runs/{run_id}").json()
    return shown["status"]


def left(client: httpx.Client, chat: str, door: str) -> str:
    """Send a message and disconnect while its pipeline holds. Returns the id of its run."""
    with sent(client, chat, f"hold {door}; send late") as answer:
        do(client, f"reached {door}")
        return answer.headers["x-run-id"]


def test_the_next_message_cancels_a_run_whose_client_has_left(client: httpx.Client) -> None:
    chat, door = str(uuid4()), str(uuid4())
    run_id = left(client, chat, door)
    with sent(client, chat, "send next") as answer:  # it does not wait for the run before it
        assert b"next" in answer.read()
    assert run_status(client, run_id) == "cancelled"


def test_a_run_whose_client_has_left_is_cancelled_after_a_while(client: httpx.Client) -> None:
    chat, door = str(uuid4()), str(uuid4())
    run_id = left(client, chat, door)
    assert run_status(client, run_id) == "running"
    eventually(lambda: run_status(client, run_id) == "cancelled")


def test_a_run_that_another_page_reads_goes_on(client: httpx.Client) -> None:
    chat, door = str(uuid4()), str(uuid4())
    with ExitStack() as stack:
        first = stack.enter_context(sent(client, chat, f"hold {door}; send kept"))
        do(client, f"reached {door}")
        second = stack.enter_context(resumed(client, chat))
        first.close()
        with sent(client, chat, "send next") as following:
            do(client, f"open {door}")
            assert b"next" in following.read()
        assert b"kept" in second.read()
    assert run_status(client, first.headers["x-run-id"]) == "completed"


def test_a_run_that_is_resumed_goes_on_after_its_first_reader_left(client: httpx.Client) -> None:
    chat, door = str(uuid4()), str(uuid4())
    run_id = left(client, chat, door)
    with resumed(client, chat) as answer:
        do(client, f"open {door}")
        assert b"late" in answer.read()
    assert run_status(client, run_id) == "completed"


def test_a_run_continues_without_its_client_if_the_operator_wants_that() -> None:
    options = ("--app", "tests.apps.scripted:app", "--vercel-on-disconnect", "continue")
    chat, door = str(uuid4()), str(uuid4())
    with Served(*options) as server, server.client() as client:
        run_id = left(client, chat, door)
        do(client, f"open {door}")
        with sent(client, chat, "send next") as answer:
            assert b"next" in answer.read()
        assert run_status(client, run_id) == "completed"
