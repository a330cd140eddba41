"""What an identity may do: its scopes, and the one contact that it may be bound to. The provider is a plugin's."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.docs.snippets import install
from tests.serving import ROOT, Served

CHAT = "/api/v1/chat"
THREADS = "/api/v1/threads"
KEY = "the-key"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder: Path = tmp_path_factory.mktemp("plugins")
    install(folder, "jimsapi_users.py", (ROOT / "tests" / "apps" / "jimsapi_users.py").read_text())
    with Served("--api-key", KEY, folder=folder) as server:
        yield server


def ask(client: httpx.Client, user: str | None, method: str, path: str, **options: Any) -> httpx.Response:
    headers = {} if user is None else {"x-user": user}
    return client.request(method, path, headers={**headers, **options.pop("headers", {})}, **options)


def chat(client: httpx.Client, user: str | None, message: str = "see", **fields: Any) -> httpx.Response:
    return ask(client, user, "POST", CHAT, json={"message": message, **fields})


def thread_of(client: httpx.Client, contact: str) -> str:
    """A thread of a contact, made by somebody who may do everything."""
    thread_id: str = chat(client, "root", contact_id=contact).json()["thread_id"]
    return thread_id


def test_a_bound_caller_may_leave_its_contact_id_out(client: httpx.Client) -> None:
    answer = chat(client, "ann")
    named = chat(client, "ann", contact_id="ann")
    assert (answer.status_code, named.status_code) == (200, 200)
    assert answer.json()["thread_id"] == named.json()["thread_id"]
    assert ask(client, "root", "GET", f"{THREADS}/{answer.json()['thread_id']}").json()["contact_id"] == "ann"


def test_an_unbound_caller_may_not_leave_it_out(client: httpx.Client) -> None:
    answer = chat(client, "root")
    assert answer.status_code == 422
    assert answer.json()["detail"] == [
        {"type": "missing", "loc": ["body", "contact_id"], "msg": "Field required", "input": {"message": "see"}}
    ]


def test_the_empty_contact_is_a_contact_that_one_can_be_bound_to(client: httpx.Client) -> None:
    thread_id = chat(client, "blank").json()["thread_id"]
    assert ask(client, "root", "GET", f"{THREADS}/{thread_id}").json()["contact_id"] == ""
    assert chat(client, "blank", contact_id="ann").status_code == 403
    assert ask(client, "blank", "GET", f"{THREADS}/{thread_of(client, 'ann')}").status_code == 404


def test_a_null_contact_of_a_bound_caller_is_still_a_wrong_type(client: httpx.Client) -> None:
    assert chat(client, "ann", contact_id=None).status_code == 422


def test_a_bound_caller_reads_and_deletes_its_own(client: httpx.Client) -> None:
    mine = chat(client, "bea").json()["thread_id"]
    assert mine in [thread["thread_id"] for thread in ask(client, "bea", "GET", THREADS).json()["threads"]]
    assert ask(client, "bea", "GET", f"{THREADS}/{mine}/events").status_code == 200
    assert ask(client, "bea", "DELETE", f"{THREADS}/{mine}").status_code == 204
    theirs = thread_of(client, "ann")
    chat(client, "bea")
    assert ask(client, "bea", "DELETE", "/api/v1/contacts").status_code == 204
    assert ask(client, "bea", "GET", THREADS).json() == {"threads": [], "next": None}
    assert ask(client, "root", "GET", f"{THREADS}/{theirs}").status_code == 200


def test_a_deleted_thread_s_open_and_waiting_runs_get_404(served: Served) -> None:
    with served.client() as client:
        thread_id = chat(client, "root", contact_id="doomed").json()["thread_id"]
    answers: dict[str, httpx.Response] = {}

    def send(message: str) -> threading.Thread:
        def work() -> None:
            with served.client() as client:
                answers[message] = chat(client, "root", message, contact_id="doomed", thread_id=thread_id)

        thread = threading.Thread(target=work)
        thread.start()
        return thread

    with served.client() as client:
        running = send("hold doom")
        chat(client, "root", "reached doom", contact_id="watcher")
        waiting = send("see")
        assert ask(client, "root", "DELETE", f"{THREADS}/{thread_id}").status_code == 204
        running.join()
        waiting.join()
        for answer in answers.values():
            assert (answer.status_code, answer.json()) == (404, {"detail": f"Thread '{thread_id}' not found"})
        assert ask(client, "root", "GET", f"{THREADS}/{thread_id}/events").status_code == 404
