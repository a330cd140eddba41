"""What today's clients rely on, byte for byte, over a real socket. The bodies expected are jims-api 0.6.2's own."""

from typing import Any
from uuid import UUID, uuid4

import httpx
import orjson
import pytest

CHAT = "/api/v1/chat"
JSON = {"content-type": "application/json"}
GOOD = {"contact_id": "ann", "message": "hi"}


def post(client: httpx.Client, body: str | bytes) -> httpx.Response:
    return client.post(CHAT, content=body, headers=JSON)


def fault(kind: str, loc: list[str | int], message: str, value: Any, error: str | None = None) -> dict[str, Any]:
    item = {"type": kind, "loc": ["body", *loc], "msg": message, "input": value}
    return item if error is None else {**item, "ctx": {"error": error}}


def text_fault(field: str, value: Any) -> dict[str, Any]:
    return fault("string_type", [field], "Input should be a valid string", value)


def missing(field: str, body: Any) -> dict[str, Any]:
    return fault("missing", [field], "Field required", body)


def uuid_fault(value: str, error: str) -> dict[str, Any]:
    return fault("uuid_parsing", ["thread_id"], f"Input should be a valid UUID, {error}", value, error)


def switch_fault(kind: str, value: Any) -> dict[str, Any]:
    said = "Input should be a valid boolean"
    if kind == "bool_parsing":
        said += ", unable to interpret input"
    return fault(kind, ["run_conversation_start_on_new_thread"], said, value)


def broken(position: int, error: str) -> dict[str, Any]:
    return fault("json_invalid", [position], "JSON decode error", {}, error)


def no_object(value: Any) -> dict[str, Any]:
    said = "Input should be a valid dictionary or object to extract fields from"
    return fault("model_attributes_type", [], said, value)


EVERYTHING_WRONG = {
    "contact_id": 1,
    "thread_id": "x",
    "thread_config": [],
    "event_type": 5,
    "run_conversation_start_on_new_thread": "maybe",
}

FAULTY: list[tuple[str, list[dict[str, Any]]]] = [
    ('{"contact_id":1,"message":2}', [text_fault("contact_id", 1), text_fault("message", 2)]),
    (
        '{"contact_id":["a"],"message":{"b":1},"thread_id":"zz"}',
        [
            text_fault("contact_id", ["a"]),
            text_fault("message", {"b": 1}),
            uuid_fault("zz", "invalid character: found `z` at 0"),
        ],
    ),
    (
        orjson.dumps(EVERYTHING_WRONG).decode(),
        [
            text_fault("contact_id", 1),
            missing("message", EVERYTHING_WRONG),
            uuid_fault("x", "invalid character: found `x` at 0"),
            fault("dict_type", ["thread_config"], "Input should be a valid dictionary", []),
            text_fault("event_type", 5),
            switch_fault("bool_parsing", "maybe"),
        ],
    ),
    ('{"contact_id":"a"}', [missing("message", {"contact_id": "a"})]),
    ("{}", [missing("contact_id", {}), missing("message", {})]),
    ('{"contact_id":"a","message":null}', [text_fault("message", None)]),
    ("{", [broken(1, "Expecting property name enclosed in double quotes")]),
    ('{"contact_id": nope}', [broken(15, "Expecting value")]),
    ('{"contact_id":"a","message":"b"} x', [broken(33, "Extra data")]),
    ("", [fault("missing", [], "Field required", None)]),
    ("[]", [no_object([])]),
    ('"x"', [no_object("x")]),
    ("null", [no_object(None)]),
    ("5", [no_object(5)]),
]

FAULTY_FIELDS: list[tuple[str, dict[str, Any]]] = [
    ('"thread_id":"nope"', uuid_fault("nope", "invalid character: found `n` at 0")),
    ('"thread_id":""', uuid_fault("", "invalid length: found 0")),
    (
        '"thread_id":"0192b5f2-2c03-7b91-9c6c-9a12345678"',
        uuid_fault("0192b5f2-2c03-7b91-9c6c-9a12345678", "invalid group length in group 4: expected 12, found 10"),
    ),
    ('"thread_id":5', fault("uuid_type", ["thread_id"], "UUID input should be a string, bytes or UUID object", 5)),
    ('"thread_config":[]', fault("dict_type", ["thread_config"], "Input should be a valid dictionary", [])),
    ('"thread_config":null', fault("dict_type", ["thread_config"], "Input should be a valid dictionary", None)),
    ('"event_type":5', text_fault("event_type", 5)),
    ('"event_type":null', text_fault("event_type", None)),
    ('"run_conversation_start_on_new_thread":"maybe"', switch_fault("bool_parsing", "maybe")),
    ('"run_conversation_start_on_new_thread":2', switch_fault("bool_parsing", 2)),
    ('"run_conversation_start_on_new_thread":null', switch_fault("bool_type", None)),
    ('"run_conversation_start_on_new_thread":[]', switch_fault("bool_type", [])),
]


def test_a_good_chat_is_answered_compactly_and_in_order(client: httpx.Client) -> None:
    answer = post(client, '{"contact_id":"first","message":"hi"}')
    thread_id = answer.json()["thread_id"]
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.text == (
        f'{{"thread_id":"{UUID(thread_id)}","created_new_thread":true,"assistant_messages":["You said: hi"],'
        '"events":[{"event_type":"comm.assistant_message",'
        '"event_data":{"role":"assistant","content":"You said: hi"}}]}'
    )
    again = post(client, '{"contact_id":"first","message":"hi"}').json()
    assert (again["thread_id"], again["created_new_thread"]) == (thread_id, False)


def test_the_answer_names_its_run_and_its_request(client: httpx.Client) -> None:
    answer = client.post(CHAT, json=GOOD)
    assert UUID(answer.headers["x-run-id"]).version == 7
    assert answer.headers["x-request-id"]


def test_an_unknown_thread_is_not_found(client: httpx.Client) -> None:
    thread_id = str(uuid4())
    answer = client.post(CHAT, json={**GOOD, "thread_id": thread_id.upper()})
    assert (answer.status_code, answer.text) == (404, f'{{"detail":"Thread \'{thread_id}\' not found"}}')


def test_a_pipeline_that_raises_is_told_with_its_text(client: httpx.Client) -> None:
    answer = client.post(CHAT, json={**GOOD, "message": "raise no model"})
    assert (answer.status_code, answer.text) == (500, '{"detail":"Pipeline error: no model"}')


@pytest.mark.parametrize(("body", "faults"), FAULTY, ids=[body[:40] or "empty" for body, _ in FAULTY])
def test_every_fault_of_a_body_is_listed(client: httpx.Client, body: str, faults: list[dict[str, Any]]) -> None:
    answer = post(client, body)
    assert (answer.status_code, answer.text) == (422, orjson.dumps({"detail": faults}).decode())


@pytest.mark.parametrize(("field", "faulty"), FAULTY_FIELDS, ids=[field for field, _ in FAULTY_FIELDS])
def test_a_faulty_field_is_named(client: httpx.Client, field: str, faulty: dict[str, Any]) -> None:
    answer = post(client, f'{{"contact_id":"a","message":"b",{field}}}')
    assert (answer.status_code, answer.text) == (422, orjson.dumps({"detail": [faulty]}).decode())


@pytest.mark.parametrize(
    ("method", "path", "status", "body", "allow"),
    [
        ("GET", CHAT, 405, '{"detail":"Method Not Allowed"}', {"POST", "OPTIONS"}),
        ("PUT", "/healthz", 405, '{"detail":"Method Not Allowed"}', {"GET", "HEAD", "OPTIONS"}),
        ("GET", "/nope", 404, '{"detail":"Not Found"}', None),
        ("POST", "/api/v2/chat", 404, '{"detail":"Not Found"}', None),
        ("GET", "/healthz", 200, '{"status":"ok"}', None),
        ("GET", "/readyz", 200, '{"status":"ok"}', None),
        ("HEAD", "/healthz", 200, "", None),
    ],
)
def test_methods_and_paths(
    client: httpx.Client, method: str, path: str, status: int, body: str, allow: set[str] | None
) -> None:
    answer = client.request(method, path)
    assert (answer.status_code, answer.text) == (status, body)
    assert allow is None or set(answer.headers["allow"].split(", ")) == allow


def test_a_thread_config_left_out_says_api(client: httpx.Client) -> None:
    answer = client.post(CHAT, json={"contact_id": "unconfigured", "message": "config"})
    assert answer.json()["events"] == [{"event_type": "rag.config", "event_data": {"interface": "api"}}]


def test_the_message_enters_the_thread_as_a_user_message_unless_the_caller_names_a_type(client: httpx.Client) -> None:
    usual = client.post(CHAT, json={"contact_id": "typed", "message": "action"}).json()
    other = client.post(CHAT, json={"contact_id": "typed", "message": "action", "event_type": "comm.pressed"}).json()
    assert usual["assistant_messages"] == ['["user_message", "action"]']
    assert other["assistant_messages"] == ['["pressed", "action"]']


SPELLINGS = ["{0}", "{0.hex}", "{{{0}}}", "urn:uuid:{0}"]


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("upper", [False, True])
def test_a_thread_id_is_read_as_pydantic_reads_uuids(client: httpx.Client, spelling: str, upper: bool) -> None:
    thread_id = UUID(client.post(CHAT, json=GOOD).json()["thread_id"])
    spelled = spelling.format(thread_id)
    if upper:
        spelled = spelled.upper().replace("URN:UUID:", "urn:uuid:")
    answer = client.post(CHAT, json={**GOOD, "thread_id": spelled})
    assert (answer.status_code, answer.json().get("thread_id")) == (200, str(thread_id))


@pytest.mark.parametrize(
    "content_type",
    [
        "application/json",
        "application/json; charset=utf-8",
        "Application/JSON;charset=UTF-8",
        "application/vnd.api+json",
        "application/ld+json; charset=utf-8",
    ],
)
def test_a_body_declared_as_any_json_is_taken(client: httpx.Client, content_type: str) -> None:
    answer = client.post(CHAT, content=orjson.dumps(GOOD), headers={"content-type": content_type})
    assert answer.status_code == 200


@pytest.mark.parametrize(
    "content_type", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", None]
)
def test_a_body_not_declared_as_json_is_refused(client: httpx.Client, content_type: str | None) -> None:
    headers = {} if content_type is None else {"content-type": content_type}
    assert client.post(CHAT, content=orjson.dumps(GOOD), headers=headers).status_code == 415


@pytest.mark.parametrize(
    "body",
    [
        {**GOOD, "model": "gpt", "stream": {"deep": [1]}},
        {"contact_id": "", "message": "hi"},
        {"contact_id": "ann", "message": ""},
        {**GOOD, "thread_id": None},
    ],
    ids=["extra fields", "empty contact_id", "empty message", "thread_id null"],
)
def test_what_todays_clients_send_is_taken(client: httpx.Client, body: dict[str, Any]) -> None:
    answer = client.post(CHAT, json=body)
    assert (answer.status_code, answer.json()["assistant_messages"]) == (200, [f"You said: {body['message']}"])


@pytest.mark.parametrize("value", ["yes", "on", "1", "t", "TRUE", 1, True])
def test_the_conversation_start_is_asked_for_in_lax_words(client: httpx.Client, value: Any) -> None:
    contact = f"greeted-{value!r}"
    body = {"contact_id": contact, "message": "see", "run_conversation_start_on_new_thread": value}
    answer = client.post(CHAT, json=body)
    assert answer.json()["assistant_messages"] == ['{"asked": ["see"], "answered": 1}']


@pytest.mark.parametrize("value", ["no", "off", "0", "False", 0, False])
def test_the_conversation_start_is_declined_in_lax_words(client: httpx.Client, value: Any) -> None:
    body = {"contact_id": f"declined-{value!r}", "message": "see", "run_conversation_start_on_new_thread": value}
    assert client.post(CHAT, json=body).json()["assistant_messages"] == ['{"asked": ["see"], "answered": 0}']


def test_what_is_no_object_among_the_events_is_shown_as_an_empty_one(client: httpx.Client) -> None:
    answer = client.post(CHAT, json={"contact_id": "lists", "message": "list"})
    assert answer.json()["events"] == [{"event_type": "rag.list", "event_data": {}}]


def test_only_plain_assistant_messages_are_listed_as_such(client: httpx.Client) -> None:
    answer = client.post(CHAT, json={"contact_id": "buttons", "message": "buttons"}).json()
    assert answer["assistant_messages"] == []
    assert answer["events"][0]["event_data"] == {"role": "assistant", "content": "Choose", "buttons": [{"text": "Yes"}]}


def test_a_streamed_message_is_answered_whole(client: httpx.Client) -> None:
    answer = client.post(CHAT, json={"contact_id": "streams", "message": "stream to get her"}).json()
    assert answer["assistant_messages"] == ["together"]
