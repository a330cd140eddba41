"""Listing, reading and deleting threads, events and contacts."""

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote
from uuid import UUID, uuid4

import httpx
import pytest

from tests.serving import Served

CHAT = "/api/v1/chat"
THREADS = "/api/v1/threads"


@pytest.fixture(scope="module", params=[pytest.param("memory", marks=pytest.mark.long), "sqlite"])
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder: Path = tmp_path_factory.mktemp("store")
    store = "memory:" if request.param == "memory" else f"sqlite:///{folder / 'threads.db'}"
    with Served("--store", store) as server:
        yield server


def chat(client: httpx.Client, contact: str, message: str = "hi", **fields: Any) -> dict[str, Any]:
    answer = client.post(CHAT, json={"contact_id": contact, "message": message, **fields})
    assert answer.status_code == 200, answer.text
    decoded: dict[str, Any] = answer.json()
    return decoded


def pages(client: httpx.Client, path: str, items: str, **query: Any) -> list[list[dict[str, Any]]]:
    """All pages of a list, from cursor to cursor."""
    found = []
    after: dict[str, str] = {}
    while True:
        answer = client.get(path, params={**query, **after})
        assert answer.status_code == 200, answer.text
        assert list(answer.json()) == [items, "next"]
        found.append(answer.json()[items])
        if answer.json()["next"] is None:
            return found
        after = {"after": answer.json()["next"]}


def is_utc(text: str) -> bool:
    return text.endswith("Z") and datetime.fromisoformat(text).utcoffset() is not None


def test_a_thread_is_shown_with_its_contact_time_and_configuration(client: httpx.Client) -> None:
    thread_id = chat(client, "shown", thread_config={"interface": "shop", "n": [1]})["thread_id"]
    thread = client.get(f"{THREADS}/{thread_id}").json()
    assert list(thread) == [
        *("thread_id", "contact_id", "created_at", "thread_config"),
        *("title", "preview", "active_at", "archived_at", "metadata", "parent", "forks", "questions"),
    ]
    assert (thread["thread_id"], thread["contact_id"]) == (thread_id, "shown")
    assert thread["thread_config"] == {"interface": "shop", "n": [1]}
    assert is_utc(thread["created_at"])
    assert client.get(THREADS, params={"contact_id": "shown"}).json() == {"threads": [thread], "next": None}


def test_events_come_oldest_first_page_by_page(client: httpx.Client) -> None:
    for number in range(7):
        thread_id = chat(client, "paged", f"see {number}")["thread_id"]
    path = f"{THREADS}/{thread_id}/events"
    [whole] = pages(client, path, "events", limit=1000)
    by_four = pages(client, path, "events", limit=4)
    assert [len(page) for page in by_four] == [4, 4, 4, 3]
    assert [event for page in by_four for event in page] == whole
    assert list(whole[0]) == ["event_id", "created_at", "event_type", "event_data"]
    assert (whole[0]["event_type"], whole[0]["event_data"]) == ("jims.lifecycle.thread_created", {})
    assert [event["event_type"] for event in whole[1:3]] == ["comm.user_message", "comm.assistant_message"]
    assert whole[1]["event_data"] == {"role": "user", "content": "see 0"}
    times = [event["created_at"] for event in whole]
    assert times == sorted(set(times))
    assert all(is_utc(time) and UUID(event["event_id"]) for time, event in zip(times, whole, strict=True))


def test_a_page_that_holds_exactly_the_rest_is_the_last(client: httpx.Client) -> None:
    thread_id = chat(client, "exact")["thread_id"]
    answer = client.get(f"{THREADS}/{thread_id}/events", params={"limit": 3}).json()
    assert (len(answer["events"]), answer["next"]) == (3, None)


def test_a_page_is_100_items_unless_asked_otherwise(client: httpx.Client) -> None:
    for _ in range(50):
        thread_id = chat(client, "hundred")["thread_id"]
    assert [len(page) for page in pages(client, f"{THREADS}/{thread_id}/events", "events")] == [100, 1]


@pytest.mark.parametrize("limit", ["0", "-1", "1001", "x", "", "1.5"])
@pytest.mark.parametrize("path", [THREADS, THREADS + "/0192b5f2-2c03-7b91-9c6c-9a1234567890/events"])
def test_a_limit_outside_1_to_1000_is_422(client: httpx.Client, path: str, limit: str) -> None:
    answer = client.get(path, params={"contact_id": "ann", "limit": limit})
    assert (answer.status_code, answer.json()["detail"][0]["loc"]) == (422, ["query", "limit"])


@pytest.mark.parametrize("limit", ["1", "1000"])
def test_a_limit_from_1_to_1000_is_taken(client: httpx.Client, limit: str) -> None:
    assert client.get(THREADS, params={"contact_id": "ann", "limit": limit}).status_code == 200


@pytest.mark.parametrize("cursor", ["x", "", "AAAA", "%00", "ü", "e30", "W10=", "MQ", "bnVsbA", "a" * 5000])
def test_a_cursor_of_somebody_else_s_making_is_422(client: httpx.Client, cursor: str) -> None:
    thread_id = chat(client, "cursors")["thread_id"]
    for path in (f"{THREADS}/{thread_id}/events", THREADS):
        answer = client.get(path, params={"contact_id": "cursors", "after": cursor})
        assert (answer.status_code, answer.json()["detail"][0]["loc"]) == (422, ["query", "after"])


@pytest.mark.parametrize(("method", "path"), [("GET", THREADS), ("DELETE", "/api/v1/contacts")])
def test_a_contact_left_out_is_never_everybody(client: httpx.Client, method: str, path: str) -> None:
    thread_id = chat(client, "somebody")["thread_id"]
    answer = client.request(method, path)
    missing = {"type": "missing", "loc": ["query", "contact_id"], "msg": "Field required", "input": None}
    assert (answer.status_code, answer.json()) == (422, {"detail": [missing]})
    assert client.get(f"{THREADS}/{thread_id}").status_code == 200


def test_the_empty_contact_is_a_contact(client: httpx.Client) -> None:
    chat(client, "not-empty")
    thread_id = chat(client, "")["thread_id"]
    assert [thread["thread_id"] for thread in client.get(THREADS + "?contact_id=").json()["threads"]] == [thread_id]
    assert client.delete("/api/v1/contacts?contact_id=").status_code == 204
    assert client.get(THREADS + "?contact_id=").json()["threads"] == []
    assert len(client.get(THREADS + "?contact_id=not-empty").json()["threads"]) == 1


@pytest.mark.parametrize("contact", ["a b&c=d/e?f#g%41", "Ünïcode \U0001f994", "'; DROP TABLE threads; --", "%", "_"])
def test_a_contact_is_taken_as_it_is(client: httpx.Client, contact: str) -> None:
    thread_id = chat(client, contact)["thread_id"]
    listed = client.get(f"{THREADS}?contact_id={quote(contact, safe='')}").json()["threads"]
    assert [(thread["thread_id"], thread["contact_id"]) for thread in listed] == [(thread_id, contact)]


@pytest.mark.parametrize("contact", ["a\0b", "é" * 1001])
def test_a_contact_that_no_store_takes_is_refused_in_a_query_too(client: httpx.Client, contact: str) -> None:
    for answer in (
        client.get(THREADS, params={"contact_id": contact}),
        client.delete("/api/v1/contacts", params={"contact_id": contact}),
    ):
        assert answer.status_code == 422
        assert answer.json()["detail"][0]["loc"] == ["query", "contact_id"]


def test_a_deleted_thread_is_gone_and_its_contact_begins_anew(client: httpx.Client) -> None:
    thread_id = chat(client, "deleted")["thread_id"]
    answer = client.delete(f"{THREADS}/{thread_id}")
    assert (answer.status_code, answer.content) == (204, b"")
    assert "content-type" not in answer.headers
    gone = {"detail": f"Thread '{thread_id}' not found"}
    for again in (
        client.get(f"{THREADS}/{thread_id}"),
        client.get(f"{THREADS}/{thread_id}/events"),
        client.delete(f"{THREADS}/{thread_id}"),
        client.post(CHAT, json={"contact_id": "deleted", "message": "hi", "thread_id": thread_id}),
    ):
        assert (again.status_code, again.json()) == (404, gone)
    anew = chat(client, "deleted")
    assert anew["created_new_thread"]
    assert anew["thread_id"] != thread_id


def test_a_deleted_contact_is_gone_with_all_its_threads_and_nobody_else_s(client: httpx.Client) -> None:
    mine = chat(client, "leaves")["thread_id"]
    other = chat(client, "leaves too")["thread_id"]
    assert client.delete("/api/v1/contacts?contact_id=leaves").status_code == 204
    assert client.delete("/api/v1/contacts?contact_id=leaves").status_code == 204
    assert client.get(f"{THREADS}/{mine}").status_code == 404
    assert client.get(f"{THREADS}/{other}").status_code == 200


@pytest.mark.parametrize("path", ["", "/events"])
def test_an_unknown_thread_is_404_and_a_faulty_id_is_422_or_404(client: httpx.Client, path: str) -> None:
    unknown = uuid4()
    answer = client.get(f"{THREADS}/{unknown}{path}")
    assert (answer.status_code, answer.json()) == (404, {"detail": f"Thread '{unknown}' not found"})
    assert client.get(f"{THREADS}/nonsense{path}").status_code in (404, 422)


def test_a_page_ends_early_where_its_items_are_large_and_the_next_goes_on(client: httpx.Client) -> None:
    message = "x" * 900_000
    for _ in range(4):
        thread_id = chat(client, "large", message)["thread_id"]
    found = pages(client, f"{THREADS}/{thread_id}/events", "events", limit=1000)
    assert len(found) > 1
    said = [event for page in found for event in page if event["event_type"] == "comm.user_message"]
    assert [event["event_data"]["content"] for event in said] == [message] * 4
    assert len({event["event_id"] for page in found for event in page}) == sum(map(len, found))


def events_of(client: httpx.Client, thread_id: str) -> list[dict[str, Any]]:
    events: list[dict[str, Any]] = client.get(f"{THREADS}/{thread_id}/events").json()["events"]
    return events


def test_a_list_shows_what_a_thread_is_about(client: httpx.Client) -> None:
    thread_id = chat(client, "about", "Who   likes\nquokkas? " + 50 * "Tell me. ")["thread_id"]
    chat(client, "about", "And wombats?")
    [thread] = client.get(THREADS, params={"contact_id": "about"}).json()["threads"]
    assert thread["title"].startswith("Who likes quokkas? Tell me.")
    assert thread["title"].endswith(" Tell…")
    assert 70 <= len(thread["title"]) <= 80
    assert thread["preview"] == "You said: And wombats?"
    assert thread["active_at"] == events_of(client, thread_id)[-1]["created_at"]
    assert (thread["archived_at"], thread["metadata"], thread["parent"]) == (None, {}, None)


def test_a_title_of_one_long_word_is_cut(client: httpx.Client) -> None:
    chat(client, "long word", "x" * 1000)
    [thread] = client.get(THREADS, params={"contact_id": "long word"}).json()["threads"]
    assert thread["title"] == "x" * 79 + "…"


def test_a_thread_gets_a_title_and_metadata_and_is_archived(client: httpx.Client) -> None:
    path = f"{THREADS}/{chat(client, 'changed')['thread_id']}"
    changed = client.patch(path, json={"title": "Marsupials", "metadata": {"stars": 5}}).json()
    assert (changed["title"], changed["metadata"], changed["archived_at"]) == ("Marsupials", {"stars": 5}, None)
    archived = client.patch(path, json={"archived": True}).json()
    assert (archived["title"], archived["metadata"]) == ("Marsupials", {"stars": 5})
    assert is_utc(archived["archived_at"])
    assert client.get(path).json() == archived
    for asked, threads in (("true", [archived]), ("false", [])):
        found = client.get(THREADS, params={"contact_id": "changed", "archived": asked}).json()["threads"]
        assert found == threads
    restored = client.patch(path, json={"archived": False, "title": None}).json()
    assert (restored["title"], restored["archived_at"]) == ("hi", None)
    assert client.patch(path, json={}).json() == restored


@pytest.mark.parametrize(
    ("body", "loc"),
    [
        ({"title": ""}, ["body", "title"]),
        ({"title": "x" * 501}, ["body", "title"]),
        ({"title": 5}, ["body", "title"]),
        ({"archived": "perhaps"}, ["body", "archived"]),
        ({"metadata": []}, ["body", "metadata"]),
    ],
)
def test_faulty_changes_of_a_thread_are_refused_and_change_nothing(
    client: httpx.Client, body: dict[str, Any], loc: list[str]
) -> None:
    path = f"{THREADS}/{chat(client, 'faulty')['thread_id']}"
    before = client.get(path).json()
    answer = client.patch(path, json={"metadata": {"new": 1}, **body})
    assert (answer.status_code, answer.json()["detail"][0]["loc"]) == (422, loc)
    assert client.get(path).json() == before


def test_an_edited_message_is_a_fork_before_it(client: httpx.Client) -> None:
    parent_id = chat(client, "editor", "one")["thread_id"]
    chat(client, "editor", "two")
    events = events_of(client, parent_id)
    [two] = [event for event in events if event["event_data"].get("content") == "two"]
    answer = client.post(f"{THREADS}/{parent_id}/fork", json={"before": two["event_id"]})
    fork = answer.json()
    assert (answer.status_code, answer.headers["location"]) == (201, f"{THREADS}/{fork['thread_id']}")
    kept = events[: events.index(two)]
    assert fork["parent"] == {"thread_id": parent_id, "event_id": kept[-1]["event_id"]}
    assert events_of(client, fork["thread_id"]) == kept
    said = chat(client, "editor", "three", thread_id=fork["thread_id"])
    assert said["thread_id"] == fork["thread_id"]
    assert events_of(client, parent_id) == events
    listed = client.get(THREADS, params={"contact_id": "editor"}).json()["threads"]
    assert [thread["thread_id"] for thread in listed] == [fork["thread_id"], parent_id]


def test_a_fork_ends_at_an_event_or_has_all(client: httpx.Client) -> None:
    parent_id = chat(client, "forker")["thread_id"]
    events = events_of(client, parent_id)
    at = client.post(f"{THREADS}/{parent_id}/fork", json={"at": events[1]["event_id"]}).json()
    assert events_of(client, at["thread_id"]) == events[:2]
    whole = client.post(f"{THREADS}/{parent_id}/fork", json={}).json()
    assert events_of(client, whole["thread_id"]) == events


def test_forks_at_events_that_are_not_there_are_refused(client: httpx.Client) -> None:
    parent_id = chat(client, "missing")["thread_id"]
    first, *_, last = events_of(client, parent_id)
    path = f"{THREADS}/{parent_id}/fork"
    assert client.post(path, json={"at": str(uuid4())}).status_code == 404
    assert client.post(path, json={"before": first["event_id"]}).status_code == 404
    both = client.post(path, json={"at": last["event_id"], "before": last["event_id"]})
    assert (both.status_code, both.json()["detail"][0]["loc"]) == (422, ["body", "before"])
    assert client.post(f"{THREADS}/{uuid4()}/fork", json={}).status_code == 404
    assert len(client.get(THREADS, params={"contact_id": "missing"}).json()["threads"]) == 1


def test_an_answer_is_rated_and_rated_again(client: httpx.Client) -> None:
    thread_id = chat(client, "rater")["thread_id"]
    answer = events_of(client, thread_id)[-1]["event_id"]
    path, feedback = f"{THREADS}/{thread_id}/events/{answer}/feedback", f"{THREADS}/{thread_id}/feedback"
    assert client.put(path, json={"rating": -1, "comment": "Too short"}).status_code == 204
    [given] = client.get(feedback).json()["feedback"]
    assert is_utc(given.pop("given_at"))
    assert given == {"event_id": answer, "rating": -1, "comment": "Too short"}
    assert client.put(path, json={"rating": 1}).status_code == 204
    [given] = client.get(feedback).json()["feedback"]
    assert (given["rating"], given["comment"]) == (1, None)
    assert [client.delete(path).status_code for _ in range(2)] == [204, 204]
    assert client.get(feedback).json() == {"feedback": [], "next": None}


@pytest.mark.parametrize("body", [{}, {"rating": 0}, {"rating": 5}, {"rating": 1, "comment": "x" * 10_001}])
def test_faulty_ratings_are_refused(client: httpx.Client, body: dict[str, Any]) -> None:
    thread_id = chat(client, "faulty rater")["thread_id"]
    answer = events_of(client, thread_id)[-1]["event_id"]
    assert client.put(f"{THREADS}/{thread_id}/events/{answer}/feedback", json=body).status_code == 422
    assert client.put(f"{THREADS}/{thread_id}/events/{uuid4()}/feedback", json={"rating": 1}).status_code == 404
    assert client.get(f"{THREADS}/{thread_id}/feedback").json() == {"feedback": [], "next": None}


def test_ratings_have_pages(client: httpx.Client) -> None:
    thread_id = chat(client, "pages of ratings")["thread_id"]
    events = [event["event_id"] for event in events_of(client, thread_id)]
    for event_id in events:
        path = f"{THREADS}/{thread_id}/events/{event_id}/feedback"
        assert client.put(path, json={"rating": 1, "comment": "x" * 10_000}).status_code == 204
    found = pages(client, f"{THREADS}/{thread_id}/feedback", "feedback", limit=2)
    assert [len(page) for page in found] == [2] * (len(events) // 2) + [1] * (len(events) % 2)
    assert [one["event_id"] for page in found for one in page] == events
    other = client.get(f"{THREADS}/{thread_id}/events", params={"limit": 1}).json()["next"]
    for cursor in ("x", other):
        answer = client.get(f"{THREADS}/{thread_id}/feedback", params={"after": cursor})
        assert (answer.status_code, answer.json()["detail"][0]["loc"]) == (422, ["query", "after"])


def test_metadata_of_more_than_16_kibibytes_is_422(client: httpx.Client) -> None:
    path = f"{THREADS}/{chat(client, 'much metadata')['thread_id']}"
    most = {"a": "x" * (16_384 - len('{"a":""}'))}
    assert client.patch(path, json={"metadata": most}).status_code == 200
    answer = client.patch(path, json={"title": "t", "metadata": {"a": most["a"] + "x"}})
    assert (answer.status_code, answer.json()["detail"][0]["loc"]) == (422, ["body", "metadata"])
    thread = client.get(path).json()
    assert (thread["metadata"], thread["title"]) == (most, "hi")


def test_a_fork_that_is_requested_again_with_its_key_is_made_once(client: httpx.Client) -> None:
    parent_id = chat(client, "key of forks")["thread_id"]
    events = [event["event_id"] for event in events_of(client, parent_id)]
    path = f"{THREADS}/{parent_id}/fork"
    bodies: list[dict[str, str]] = [{}, {"at": events[1]}, {"before": events[2]}, {"before": events[1]}]
    for number, body in enumerate(bodies):
        key = {"idempotency-key": f"fork-{number}"}
        first, second = [client.post(path, json=body, headers=key) for _ in range(2)]
        assert (first.status_code, second.status_code) == (201, 201)
        assert first.json() == second.json()
        assert first.headers["location"] == second.headers["location"]
        for other in bodies:
            # "At the first event" and "before the second" are the same place, but not the same request.
            if other != body:
                assert client.post(path, json=other, headers=key).status_code == 422
    listed = client.get(THREADS, params={"contact_id": "key of forks"}).json()["threads"]
    assert len(listed) == 1 + len(bodies)
    chat(client, "key of forks", "later", thread_id=parent_id)
    again = client.post(path, json={}, headers={"idempotency-key": "fork-0"})
    assert again.json()["thread_id"] in {thread["thread_id"] for thread in listed}
    assert client.delete(f"{THREADS}/{parent_id}").status_code == 204
    for number, body in enumerate(bodies):
        again = client.post(path, json=body, headers={"idempotency-key": f"fork-{number}"})
        assert again.json()["thread_id"] in {thread["thread_id"] for thread in listed}


def test_forks_with_the_same_key_are_those_of_their_thread(client: httpx.Client) -> None:
    parents = [chat(client, f"parent {number}")["thread_id"] for number in range(2)]
    key = {"idempotency-key": "same"}
    forks = [client.post(f"{THREADS}/{one}/fork", json={}, headers=key).json() for one in parents]
    assert [fork["parent"]["thread_id"] for fork in forks] == parents
    refused = client.post(f"{THREADS}/{parents[0]}/fork", json={}, headers={"idempotency-key": "x" * 256})
    assert refused.status_code == 422


def test_a_fork_before_the_greatest_identifier_is_404(client: httpx.Client) -> None:
    parent_id = chat(client, "greatest")["thread_id"]
    for key in ({}, {"idempotency-key": "1"}):
        body = {"before": "ffffffff-ffff-ffff-ffff-ffffffffffff"}
        assert client.post(f"{THREADS}/{parent_id}/fork", json=body, headers=key).status_code == 404
