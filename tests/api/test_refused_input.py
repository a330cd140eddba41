"""What no store takes is refused the same way on every one: 422, and nothing is stored."""

from pathlib import Path
from typing import Any

import httpx
import msgspec
import orjson
import pytest

from jimsapi.asgi import App, Request, Response
from jimsapi.asgi.testing import TestClient
from jimsapi.threads.errors import InputRefused
from jimsapi.wire.errors import handle_domain_errors
from tests.serving import Served

CHAT = "/api/v1/chat"
JSON = {"content-type": "application/json"}


@pytest.fixture(scope="module", params=[pytest.param("memory", marks=pytest.mark.long), "sqlite"])
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder: Path = tmp_path_factory.mktemp("store")
    store = "memory:" if request.param == "memory" else f"sqlite:///{folder / 'refused.db'}"
    with Served("--store", store, "--max-body", "20000") as server:
        yield server


def body(**changes: str) -> str:
    """A good body with raw JSON in some fields."""
    fields = {"contact_id": '"refused"', "message": '"hi"', **changes}
    return "{" + ",".join(f'"{name}":{value}' for name, value in fields.items()) + "}"


def nested(depth: int) -> str:
    return '{"a":' * depth + "1" + "}" * depth


REFUSED = [
    ("contact_id", body(contact_id='"a\\u0000b"')),
    ("message", body(message='"a\\u0000b"')),
    ("event_type", body(event_type='"comm.\\u0000"')),
    ("thread_config", body(thread_config='{"deep":[{"a":"\\u0000"}]}')),
    ("thread_config", body(thread_config='{"\\u0000":1}')),
    ("thread_config", body(thread_config=f'{{"big":{2**64}}}')),
    ("thread_config", body(thread_config=f'{{"small":{-(2**63) - 1}}}')),
    ("thread_config", body(thread_config=nested(201))),
    ("contact_id", body(contact_id='"' + "a" * 2001 + '"')),
    ("contact_id", body(contact_id='"' + "é" * 1001 + '"')),
    ("event_type", body(event_type='"' + "a" * 256 + '"')),
    ("event_type", body(event_type='"state.set.cart"')),
    ("event_type", body(event_type='"jims.lifecycle.thread_created"')),
]


@pytest.mark.parametrize(
    ("field", "sent"), REFUSED, ids=[f"{field}-{number}" for number, (field, _) in enumerate(REFUSED)]
)
def test_what_cannot_be_stored_is_refused_by_name(client: httpx.Client, field: str, sent: str) -> None:
    answer = client.post(CHAT, content=sent, headers=JSON)
    assert answer.status_code == 422
    faults = answer.json()["detail"]
    assert [fault["loc"][:2] for fault in faults] == [["body", field]]
    assert all({"type", "loc", "msg", "input"} <= set(fault) for fault in faults)
    listed = client.get("/api/v1/threads", params={"contact_id": "refused"})
    assert listed.json() == {"threads": [], "next": None}


@pytest.mark.parametrize(
    "sent",
    [body(message='"\\ud800"'), body(contact_id='"\\udfff"'), body(thread_config='{"a":"\\ud800"}')],
)
def test_a_lone_surrogate_is_refused(client: httpx.Client, sent: str) -> None:
    answer = client.post(CHAT, content=sent, headers=JSON)
    assert answer.status_code == 422
    assert answer.json()["detail"][0]["loc"][0] == "body"


@pytest.mark.parametrize("encoded", [b'{"contact_id":"a","message":"\xff"}', b"\xff\xfe{\x00", b"\xef\xbb\xbf{"])
def test_what_is_no_utf_8_is_refused(client: httpx.Client, encoded: bytes) -> None:
    answer = client.post(CHAT, content=encoded, headers=JSON)
    assert (answer.status_code, answer.json()["detail"][0]["type"]) == (422, "json_invalid")


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity"])
def test_what_is_no_json_number_is_refused(client: httpx.Client, number: str) -> None:
    answer = client.post(CHAT, content=body(thread_config=f'{{"n":{number}}}'), headers=JSON)
    assert answer.status_code == 422


TAKEN = [
    {"contact_id": "a" * 2000, "message": "hi"},
    {"contact_id": "é" * 1000, "message": "hi"},
    {"contact_id": "types", "message": "hi", "event_type": "a" * 255},
    {"contact_id": "types", "message": "hi", "event_type": "stately.thing"},
    {"contact_id": "slashes", "message": "a\\u0000 \\\\u0000 is text"},
    {"contact_id": "emoji \U0001f994", "message": "\U0001f994 \U0001d11e"},
    {"contact_id": "numbers", "message": "hi", "thread_config": {"big": 2**64 - 1, "small": -(2**63)}},
    {"contact_id": "brackets", "message": "[{" * 300},
]


@pytest.mark.parametrize("sent", TAKEN, ids=range(len(TAKEN)))
def test_what_is_just_within_the_limits_is_taken_and_comes_back(client: httpx.Client, sent: dict[str, Any]) -> None:
    answer = client.post(CHAT, content=orjson.dumps(sent), headers=JSON)
    assert answer.status_code == 200, answer.text
    said = "" if "event_type" in sent else sent["message"]  # only what is in comm.* was said by somebody
    assert answer.json()["assistant_messages"] == [f"You said: {said}"]
    thread = client.get(f"/api/v1/threads/{answer.json()['thread_id']}").json()
    assert thread["contact_id"] == sent["contact_id"]
    assert thread["thread_config"] == sent.get("thread_config", {"interface": "api"})


def test_a_config_of_just_under_200_levels_is_taken(client: httpx.Client) -> None:
    # The body itself is one level more than the config in it.
    answer = client.post(CHAT, content=body(contact_id='"deep"', thread_config=nested(199)), headers=JSON)
    assert answer.status_code == 200


def test_a_body_over_the_limit_is_413_and_one_at_the_limit_is_taken(client: httpx.Client) -> None:
    def sized(size: int) -> bytes:
        return orjson.dumps({"contact_id": "big", "message": "x" * (size - len(b'{"contact_id":"big","message":""}'))})

    at_limit = client.post(CHAT, content=sized(20000), headers=JSON)
    over = client.post(CHAT, content=sized(20001), headers=JSON)
    chunked = client.post(CHAT, content=iter([b" " * 15000, b" " * 15000]), headers=JSON)
    assert [at_limit.status_code, over.status_code, chunked.status_code] == [200, 413, 413]
    assert over.json() == {"detail": "The request body is over the limit of 20000 bytes"}


def test_a_compressed_body_is_415(client: httpx.Client) -> None:
    answer = client.post(CHAT, content=b"\x1f\x8b", headers={**JSON, "content-encoding": "gzip"})
    assert answer.status_code == 415


@pytest.mark.anyio
async def test_a_refused_parameter_of_the_path_is_placed_in_the_path() -> None:
    app = App()
    handle_domain_errors(app)

    class Guest(msgspec.Struct):
        room: str

    @app.get("/rooms/{room}")
    async def room(request: Request) -> Response:
        raise InputRefused("room", "unknown_room", "There is no such room", request.path_params["room"])

    @app.post("/rooms/{room}", body=Guest)
    async def guest(request: Request) -> Response:
        raise InputRefused("room", "unknown_room", "There is no such room", "attic")

    async with TestClient(app) as client:
        places = [
            (await client.request(method, "/rooms/attic")).json()["detail"][0]["loc"] for method in ("GET", "POST")
        ]
    assert places == [["path", "room"], ["body", "room"]]
