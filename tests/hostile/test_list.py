"""The list of hostile requests: each row has a test, here or where its part is tested."""

import asyncio
import json
import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from tests.hostile import pointers
from tests.raw import connect, ended, read_answer, request
from tests.serving import Served

pytestmark = pytest.mark.anyio

ROWS = {
    "a concurrent retry with one key is one run": [
        "tests/runs/test_idempotency.py::test_fifty_at_once_are_one_run_and_get_one_answer",
    ],
    "a key with another body is 422, another caller's key leaks nothing": [
        "tests/api/test_idempotency.py::test_another_body_is_422",
        "tests/runs/test_idempotency.py::test_callers_providers_and_contacts_do_not_meet_in_a_key",
    ],
    "an empty token is 401, and Authentik is not asked": [
        "tests/api/test_key.py::test_an_empty_token_is_a_wrong_one",
        "plugins/jimsapi-authentik/tests/test_rows.py::test_authentik_is_never_asked_about_what_it_might_take_for_an_anonymous_visitor",
    ],
    "a 403 of Authentik's is 401": [
        "plugins/jimsapi-authentik/tests/test_rows.py::test_a_token_gets_what_authentik_says_of_it",
        "plugins/jimsapi-authentik/tests/test_faults.py::test_a_refusal_of_the_token_is_one_whatever_its_body_says",
    ],
    "a broken Authentik is 503, closed": [
        "plugins/jimsapi-authentik/tests/test_faults.py::test_only_200_with_passing_exactly_true_lets_in",
        "plugins/jimsapi-authentik/tests/test_faults.py::test_an_authentik_that_never_answers",
        "plugins/jimsapi-authentik/tests/test_faults.py::test_a_port_where_nobody_listens",
    ],
    "two Authorization headers are 400": [
        "tests/api/test_key.py::test_two_authorization_headers_are_one_too_many",
    ],
    "a client that does not read has a deadline": [
        "tests/asgi/test_servers.py::test_a_client_that_does_not_read_a_stream_ends_and_closes_its_content",
        "tests/server/test_http1.py::test_a_client_that_takes_nothing_is_cut",
        "tests/asgi/test_websockets.py::test_a_client_that_does_not_read_is_cut_off_and_logged_once",
    ],
    "a slow head or body is 408 or closed": [
        "tests/server/test_http1.py::test_a_slow_head_is_408",
        "tests/server/test_http1.py::test_a_slow_body_is_408_and_its_app_is_told",
    ],
    "a huge header is 431": ["tests/server/test_http1.py::test_a_head_has_64_kib_and_no_byte_more"],
    "two lengths, chunks with a length, bare LF are 400, and the connection closes": [
        "tests/server/test_http1.py::test_what_may_be_read_in_two_ways_is_refused",
        "tests/hostile/test_framing.py::test_a_kept_string_is_taken_as_h11_and_llhttp_take_it_or_refused_and_the_same_in_pieces",
    ],
    "a chunked body over the limit is 413, and the connection closes": [
        "tests/asgi/test_servers.py::test_a_chunked_body_over_the_limit_is_413_and_ends_the_connection",
        "tests/api/test_refused_input.py::test_a_body_over_the_limit_is_413_and_one_at_the_limit_is_taken",
    ],
    "NUL and lone surrogates are the same 4xx on every store": [
        "tests/api/test_refused_input.py::test_what_cannot_be_stored_is_refused_by_name",
        "tests/api/test_refused_input.py::test_a_lone_surrogate_is_refused",
        "tests/hostile/test_targets.py::test_a_parser_keeps_its_promises_for_kept_bytes",
    ],
    "a plugin or pipeline that raises, blocks or returns rubbish harms no other request": [
        "tests/api/test_failures.py::test_one_that_raises_is_500_and_its_run_failed",
        "tests/api/test_limits.py::test_a_pipeline_that_hangs_is_504_and_its_thread_goes_on",
        "tests/api/test_failures.py::test_what_is_no_event_among_the_outgoing_is_refused",
        "tests/plugins/test_composition.py::test_a_resolver_that_fails_fails_its_request_alone",
        "tests/plugins/test_composition.py::test_a_sink_that_hangs_is_cut_off_and_gets_the_next_batch",
        "tests/plugins/test_exits.py::test_observers_and_sinks_that_exit_affect_no_request",
        "tests/plugins/test_author_errors.py::test_a_provider_that_raises_is_logged_with_its_line_and_without_the_credentials",
    ],
}


@pytest.fixture(scope="module", params=["memory", "sqlite"])
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder: Path = tmp_path_factory.mktemp("store")
    with Served("--store", "memory:" if request.param == "memory" else f"sqlite:///{folder / 'hostile.db'}") as server:
        yield server


@pytest.mark.parametrize("row", ROWS)
def test_a_row_of_the_list_is_tested_where_it_says(row: str) -> None:
    names = pointers.NAME.findall(" ".join(ROWS[row]))
    assert len(names) == len(ROWS[row])
    assert pointers.missing(names) == []


@pytest.mark.parametrize("depth", [199, 200, 201, 254, 255, 1024, 1025, 50_000])
def test_a_config_that_is_too_deep_is_422_and_one_just_within_the_limit_comes_back(served: Served, depth: int) -> None:
    config = '{"a":' * (depth - 1) + "1" + "}" * (depth - 1)  # the body is a level itself
    body = f'{{"contact_id":"deep-{depth}","message":"hi","thread_config":{config}}}'
    with served.client() as client:
        answer = client.post("/api/v1/chat", content=body, headers={"content-type": "application/json"})
        if depth <= 200:
            assert answer.status_code == 200
            thread = client.get(f"/api/v1/threads/{answer.json()['thread_id']}")
            assert thread.text.count('{"a":') == depth - 1
        else:
            assert answer.status_code == 422
            assert json.loads(answer.content)["detail"][0]["loc"][0] == "body"
        assert client.post("/api/v1/chat", json={"contact_id": "b", "message": "hi"}).status_code == 200


@pytest.mark.parametrize(("number", "status"), [(2**63, 200), (2**64 - 1, 200), (2**64, 422), (-(2**63) - 1, 422)])
def test_an_integer_comes_back_exactly_or_is_422(served: Served, number: int, status: int) -> None:
    with served.client() as client:
        body = {"contact_id": f"{number}", "message": "hi", "thread_config": {"n": number}}
        answer = client.post("/api/v1/chat", json=body)
        assert answer.status_code == status
        if status == 200:
            thread = client.get(f"/api/v1/threads/{answer.json()['thread_id']}").json()
            assert thread["thread_config"] == {"n": number}


def test_a_body_that_is_shorter_than_its_length_says_is_never_a_message(served: Served) -> None:
    body = b'{"contact_id":"short","message":"hi"}'
    head = request("POST", "/api/v1/chat", "content-type: application/json", f"content-length: {len(body) + 1}")
    with closing(connect(served.port)) as client:
        client.sendall(head + body)
        client.shutdown(socket.SHUT_WR)
        assert ended(client)
    with served.client() as client:
        assert client.get("/api/v1/threads", params={"contact_id": "short"}).json()["threads"] == []


def test_what_is_longer_than_its_length_says_is_no_part_of_the_message(served: Served) -> None:
    body = b'{"contact_id":"long","message":"hi"}'
    head = request("POST", "/api/v1/chat", "content-type: application/json", f"content-length: {len(body)}")
    with closing(connect(served.port)) as client:
        client.sendall(head + body + b"}\r\n\r\n")
        status, headers, answer = read_answer(client)
        assert (status, headers["connection"]) == (
            200,
            "close",
        )  # what follows is no request, so that this was the last
        assert json.loads(answer)["assistant_messages"] == ["You said: hi"]
        assert ended(client)


async def test_a_pipeline_that_raises_does_not_disturb_those_beside_it() -> None:
    with Served() as served:
        async with served.async_client() as client:

            async def chat(number: int) -> httpx.Response:
                message = "raise no" if number % 2 else f"hello {number}"
                return await client.post("/api/v1/chat", json={"contact_id": f"c{number}", "message": message})

            answers = await asyncio.gather(*map(chat, range(60)))
    assert [answer.status_code for answer in answers] == [200, 500] * 30
