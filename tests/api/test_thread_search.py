"""Searching the threads of a contact, and listing those with given metadata, forks and open questions."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import orjson
import pytest

from tests.api.test_threads import THREADS, chat, events_of, pages
from tests.serving import Served


@pytest.fixture(scope="module", params=[pytest.param("memory", marks=pytest.mark.long), "sqlite"])
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder: Path = tmp_path_factory.mktemp("store")
    store = "memory:" if request.param == "memory" else f"sqlite:///{folder / 'threads.db'}"
    with Served("--store", store) as server:
        yield server


def found(client: httpx.Client, contact: str, **query: Any) -> list[dict[str, Any]]:
    return [thread for page in pages(client, THREADS, "threads", contact_id=contact, **query) for thread in page]


def test_a_search_shows_each_thread_with_the_message_that_matches(client: httpx.Client) -> None:
    thread_id = chat(client, "searcher", "Where does the QUOKKA live?")["thread_id"]
    [message] = [one for one in events_of(client, thread_id) if one["event_type"] == "comm.user_message"]
    chat(client, "other", "quokka")
    [thread] = found(client, "searcher", q="where quokka")
    assert thread["thread_id"] == thread_id
    assert set(thread["match"]) == {"event_id", "text"}
    assert "QUOKKA" in thread["match"]["text"]
    assert thread["match"]["event_id"] in {message["event_id"], events_of(client, thread_id)[-1]["event_id"]}
    assert found(client, "searcher", q='"quokka where"') == []
    plain = client.get(f"{THREADS}/{thread_id}").json()
    assert {**plain, "match": thread["match"]} == thread
    assert "match" not in plain


def test_a_search_has_pages(client: httpx.Client) -> None:
    first = chat(client, "pager", "quokka")["thread_id"]
    forks = [client.post(f"{THREADS}/{first}/fork", json={}).json()["thread_id"] for _ in range(4)]
    by_two = pages(client, THREADS, "threads", contact_id="pager", q="quokka", limit=2)
    assert [len(page) for page in by_two] == [2, 2, 1]
    assert [thread["thread_id"] for page in by_two for thread in page] == [*forks[::-1], first]


@pytest.mark.parametrize("text", ["", " ", '""', "!?", "\0", "a\0b", "x" * 201, "__"])
def test_a_search_without_words_is_422(client: httpx.Client, text: str) -> None:
    answer = client.get(THREADS, params={"contact_id": "nobody", "q": text})
    assert (answer.status_code, answer.json()["detail"][0]["loc"]) == (422, ["query", "q"])


HOSTILE = ['"a', "a*", "NEAR(", "a AND", "a' OR 1=1 --", "a" * 200, "\u202ea", "a\ufffe", "a & !b", "a\\", "{a}:b"]


@pytest.mark.parametrize("text", HOSTILE)
def test_every_other_text_is_a_query(client: httpx.Client, text: str) -> None:
    chat(client, "hostile", "hi")
    answer = client.get(THREADS, params={"contact_id": "hostile", "q": text})
    assert answer.status_code == 200, answer.text


def test_bytes_that_are_not_utf_8_are_no_server_error(client: httpx.Client) -> None:
    assert client.get(f"{THREADS}?contact_id=ann&q=%ED%A0%80%FF").status_code < 500
    assert client.get(f"{THREADS}?contact_id=ann&metadata=%ED%A0%80").status_code == 422


def test_threads_are_listed_by_their_metadata(client: httpx.Client) -> None:
    first = chat(client, "tagger", "hi")["thread_id"]
    second = client.post(f"{THREADS}/{first}/fork", json={}).json()["thread_id"]
    client.patch(f"{THREADS}/{first}", json={"metadata": {"stars": 5, "of": "ann"}})
    client.patch(f"{THREADS}/{second}", json={"metadata": {"stars": "5"}})

    def ids(wanted: dict[str, Any], **query: Any) -> list[str]:
        return [one["thread_id"] for one in found(client, "tagger", metadata=orjson.dumps(wanted).decode(), **query)]

    assert ids({"stars": 5}) == [first]
    assert ids({"stars": "5"}) == [second]
    assert ids({"stars": 5, "of": "ann"}, q="hi") == [first]
    assert ids({"stars": 5}, q="nothing") == []
    assert ids({"stars": 4}) == []
    assert ids({}) == [second, first]


MANY_KEYS = orjson.dumps({str(number): 1 for number in range(9)}).decode()
FAULTY = ["", "x", "[]", "5", "null", '{"a":[1]}', '{"a":{}}', "{'a':1}", '{"a":"\\u0000"}', '{"a":NaN}', MANY_KEYS]


@pytest.mark.parametrize("text", [*FAULTY, "{" + " " * 2000 + "}"])
def test_faulty_metadata_is_422(client: httpx.Client, text: str) -> None:
    answer = client.get(THREADS, params={"contact_id": "nobody", "metadata": text})
    assert (answer.status_code, answer.json()["detail"][0]["loc"]) == (422, ["query", "metadata"])


def test_a_client_finds_the_place_of_a_branch_among_its_siblings(client: httpx.Client) -> None:
    parent = chat(client, "branches", "hi")["thread_id"]
    forks = [client.post(f"{THREADS}/{parent}/fork", json={}).json() for _ in range(3)]
    siblings = found(client, "branches", parent=forks[1]["parent"]["thread_id"])
    assert [thread["thread_id"] for thread in siblings] == [fork["thread_id"] for fork in forks[::-1]]
    assert [thread["forks"] for thread in found(client, "branches")] == [0, 0, 0, 3]
    assert found(client, "branches", parent=str(uuid4())) == []
    assert found(client, "other branches", parent=parent) == []
    answer = client.get(THREADS, params={"contact_id": "branches", "parent": "x"})
    assert (answer.status_code, answer.json()["detail"][0]["loc"]) == (422, ["query", "parent"])
