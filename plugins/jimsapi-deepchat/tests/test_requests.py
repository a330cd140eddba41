"""`POST /deep-chat`: what the component sends, and what it shows."""

import json
import re
from pathlib import Path
from typing import Any

import httpx
import pytest

from jimsapi import ThreadContext, create_api
from jimsapi.asgi.testing import TestClient
from tests.apps.scripted import Scripted
from tests.serving import Served

pytestmark = pytest.mark.anyio

PATH = "/deep-chat"
ODD = 'line\nend\r\n\u2028\u2029\u0085"\\ 😀'


def body(text: str, **options: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "text": text}], **options}


async def ask(client: TestClient, text: str, headers: dict[str, str] | None = None, **options: Any) -> str:
    answer = await client.post(PATH, json=body(text, **options), headers=headers)
    assert answer.status_code == 200, answer.text
    assert set(answer.json()) == {"text"}
    told: str = answer.json()["text"]
    return told


async def seen(client: TestClient, headers: dict[str, str] | None = None, **options: Any) -> list[str]:
    """The earlier messages of a conversation."""
    told: list[str] = json.loads(await ask(client, "see", headers, **options))
    return told[:-1]


def pieces(answer: httpx.Response) -> list[Any]:
    """The data of each event of a whole stream, which has nothing but data."""
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    *events, rest = answer.text.split("\n\n")
    assert rest == ""
    return [json.loads(event.removeprefix("data: ")) for event in events]


async def test_the_answer_is_one_text(client: TestClient) -> None:
    assert await ask(client, "send One; send Two; send Three") == "One\n\nTwo\n\nThree"
    assert await ask(client, "event x") == ""


async def test_buttons_are_html_that_shows_their_texts_as_they_are() -> None:
    async def choosing(ctx: ThreadContext) -> None:
        ctx.send_message_with_buttons("Choose", [{"text": "<b>one</b>"}, {"label": "two"}, {"value": 3}])

    async with TestClient(create_api(choosing, store="memory:")) as client:
        answer = (await client.post(PATH, json=body("hi"))).json()
    assert answer["text"] == "Choose"
    assert re.findall("<button[^>]*>([^<]*)</button>", answer["html"]) == ["&lt;b&gt;one&lt;/b&gt;", "two"]


async def test_three_turns_are_one_conversation_and_only_what_is_new_is_stored(client: TestClient) -> None:
    history: list[dict[str, str]] = [{"role": "ai", "text": "Welcome!"}]
    for text, expected in (("one", "You said: one"), ("two", "You said: two"), ("see", '["one", "two", "see"]')):
        history.append({"role": "user", "text": text})
        answer = (await client.post(PATH, json={"messages": history, "chat_id": "c"})).json()
        assert answer == {"text": expected}
        history.append({"role": "ai", **answer})


@pytest.mark.parametrize(("options", "accept"), [({"stream": True}, "*/*"), ({}, "text/event-stream")])
async def test_a_stream_has_each_piece_in_an_event(client: TestClient, options: dict[str, Any], accept: str) -> None:
    steps = "status Looking; stream Hel; stream lo; event x; send More"
    answer = await client.post(PATH, json=body(steps, **options), headers={"accept": accept})
    assert pieces(answer) == [{"text": "Hel"}, {"text": "lo"}, {"text": "\n\n"}, {"text": "More"}]
    assert answer.text.startswith('data: {"text":"Hel"}\n\n')


async def test_a_stream_without_a_word_has_a_blank_one(client: TestClient) -> None:
    assert pieces(await client.post(PATH, json=body("event x", stream=True))) == [{"text": " "}]


async def test_a_failure_is_an_error_with_the_status_it_has_elsewhere(client: TestClient) -> None:
    answer = await client.post(PATH, json=body("raise no model"))
    assert (answer.status_code, answer.json()) == (500, {"error": "Pipeline error: no model"})


async def test_a_failure_in_mid_stream_is_the_last_event(client: TestClient) -> None:
    answer = await client.post(PATH, json=body("stream Hel; raise no model", stream=True))
    assert pieces(answer) == [{"text": "Hel"}, {"error": "Pipeline error: no model"}]


@pytest.mark.parametrize("settings", [{"hide_errors": True}])
async def test_a_hidden_error_is_the_reference_of_its_run(client: TestClient) -> None:
    answer = await client.post(PATH, json=body("raise no model"))
    [streamed] = pieces(await client.post(PATH, json=body("raise no model", stream=True)))
    for told in (answer.json(), streamed):
        assert re.fullmatch(r"Pipeline error: reference [0-9a-f-]{36}", told["error"])


async def test_odd_characters_arrive_whichever_way_a_client_splits_lines() -> None:
    async def echo(ctx: ThreadContext) -> None:
        ctx.send_message(ctx.get_last_user_message())

    async with TestClient(create_api(echo, store="memory:")) as client:
        assert await ask(client, ODD) == ODD
        answer = await client.post(PATH, json=body(ODD, stream=True))
        assert [json.loads(line[6:]) for line in answer.text.splitlines() if line] == [{"text": ODD}]


@pytest.mark.parametrize(
    "sent",
    [
        json.dumps(body("send Hi")),  # encoded twice
        "send Hi",
        {"messages": [{"text": "send Hi"}]},
        {"messages": [{"role": "user", "text": "send Hi"}, {"role": "ai", "text": "and?"}]},
        {"messages": [{"role": "user", "files": [{}]}, {"role": "user", "text": "send Hi", "files": []}], "odd": 1},
    ],
)
async def test_a_body_may_be_encoded_twice_or_be_plain(client: TestClient, bot: Scripted, sent: Any) -> None:
    assert (await client.post(PATH, json=sent)).json() == {"text": "Hi"}
    assert bot.texts == ["send Hi"]


@pytest.mark.parametrize("settings", [{"max_body": 1000}])
@pytest.mark.parametrize(
    ("sent", "status", "text"),
    [
        ({"content": b"{"}, 422, "JSON"),
        ({"content": b"hi", "headers": {"content-type": "text/plain"}}, 415, "application/json"),
        ({"files": {"files": b"x"}, "headers": {}}, 422, "This server stores no files"),
        ({"files": {"files": b"x"}, "headers": {"origin": "https://evil.example"}}, 403, "This origin"),
        ({"files": {"files": b"x" * 1000}, "headers": {}}, 413, "over the limit of 1000 bytes"),
        ({"json": body("x" * 1000)}, 413, "over the limit of 1000 bytes"),
        ({"json": body("a\0b")}, 422, "messages.0.text: Text must not contain the character NUL"),
        ({"json": json.dumps(body("a\0b"))}, 422, "messages.0.text: Text must not contain the character NUL"),
        ({"json": "{"}, 422, "JSON"),
        ({"json": []}, 422, "object"),
        ({"json": {}}, 422, "messages: Field required"),
        ({"json": {"messages": []}}, 422, "messages: There is no message of the user"),
        (
            {"json": {"messages": [{"role": "user", "html": "<b>hi</b>"}]}},
            422,
            "messages.0.text: A message must have a text",
        ),
        (
            {"json": {"messages": [{"files": [{"src": "data:,"}], "text": "hi"}]}},
            422,
            "messages.0.files: Send files in a form",
        ),
        ({"json": body("hi", chat_id=5)}, 422, "chat_id: Input should be a valid string"),
    ],
)
async def test_refusals_are_errors_too(client: TestClient, sent: dict[str, Any], status: int, text: str) -> None:
    headers = sent.pop("headers", {"content-type": "application/json"})
    answer = await client.post(PATH, headers=headers, **sent)
    assert answer.status_code == status
    assert set(answer.json()) == {"error"}
    assert text in answer.json()["error"]


@pytest.mark.parametrize("settings", [{"rate_limit": "1/h"}])
@pytest.mark.parametrize("stream", [False, True])
async def test_a_used_up_limit_is_an_answer_with_a_status_of_its_own(client: TestClient, stream: bool) -> None:
    assert (await client.post(PATH, json=body("hi", contact_id="ann", stream=stream))).status_code == 200
    answer = await client.post(PATH, json=body("hi", contact_id="ann", stream=stream))
    assert answer.status_code == 429
    assert int(answer.headers["retry-after"]) > 0
    assert set(answer.json()) == {"error"}


async def test_two_people_never_share_a_conversation(client: TestClient) -> None:
    await ask(client, "ann's", chat_id="c", contact_id="ann")
    assert await seen(client, chat_id="c", contact_id="bea") == []
    assert await seen(client, chat_id="c") == []
    assert await seen(client, chat_id="c", contact_id="ann") == ["ann's"]


async def test_without_a_conversation_s_name_the_person_s_newest_goes_on(client: TestClient) -> None:
    await ask(client, "one", contact_id="ann")
    assert await seen(client, contact_id="ann") == ["one"]
    assert await seen(client) == []


@pytest.mark.parametrize("name", ["x" * 10_000, "Grüße-😀", "../..", "0192f3a4-0000-7000-8000-000000000000"])
async def test_a_conversation_may_have_any_name(client: TestClient, name: str) -> None:
    await ask(client, "one", chat_id=name)
    assert await seen(client, chat_id=name) == ["one"]


@pytest.mark.parametrize("settings", [{"max_body": 5_000_000}])
@pytest.mark.parametrize(("newest", "text"), [([{"role": "user", "text": "send Hi"}], "Hi"), ([], "You said:")])
async def test_earlier_messages_of_a_form_may_have_large_files_and_no_answer(
    client: TestClient, newest: list[dict[str, str]], text: str
) -> None:
    """The component sends them if the page sets `maxMessages`."""
    earlier = {"role": "user", "files": [{"src": "data:image/png;base64," + "A" * 2_000_000, "name": "cat.png"}]}
    form = {f"message{number}": json.dumps(message) for number, message in enumerate([earlier, *newest], 1)}
    answer = await client.post(PATH, data=form, files={"none": b""})
    assert (answer.status_code, answer.json()) == (200, {"text": text})


@pytest.mark.parametrize("value", ["null", "undefined"])
async def test_names_that_a_page_does_not_have_are_no_names_in_a_form_either(client: TestClient, value: str) -> None:
    names = {"contact_id": value, "chat_id": value}
    for text in ("ann's", "see"):
        form = {"message1": json.dumps({"role": "user", "text": text}), **names}
        answer = await client.post(PATH, data=form, files={"none": b""})
    assert answer.json() == {"text": '["see"]'}
    assert (await client.get(f"/api/v1/threads?contact_id={value}")).json()["threads"] == []


@pytest.mark.parametrize("settings", [{"deepchat_contact_header": "X-Person", "deepchat_thread_header": "X-Talk"}])
async def test_headers_that_the_operator_names_go_before_the_body(client: TestClient) -> None:
    headers = {"x-person": "ann", "x-talk": "c"}
    await ask(client, "one", headers, contact_id="bea", chat_id="d")
    assert await seen(client, contact_id="bea", chat_id="d") == []
    assert await seen(client, contact_id="ann", chat_id="c") == ["one"]


@pytest.mark.usefixtures("people")
async def test_a_bound_caller_stays_its_own_contact_whatever_it_says(client: TestClient) -> None:
    ann, bea = {"x-user": "ann"}, {"x-user": "bea"}
    await ask(client, "ann's", ann, chat_id="c", contact_id="bea")
    assert await seen(client, bea, chat_id="c", contact_id="ann") == []
    assert await seen(client, ann, chat_id="c") == ["ann's"]
    statuses = {
        user: (await client.post(PATH, json=body("hi"), headers={"x-user": user})).status_code
        for user in ("talker", "reader", "denied", "down", "wrong")
    }
    assert statuses == {"talker": 200, "reader": 403, "denied": 403, "down": 503, "wrong": 401}
    assert (await client.post(PATH, json=body("hi"))).json() == {"error": "Unauthorized"}


@pytest.mark.usefixtures("people")
@pytest.mark.parametrize("user", ["talker", "ann", "ann-talks", "root"])
@pytest.mark.parametrize("names", [{}, {"contact_id": "Ann & Bea"}])
async def test_every_caller_can_read_the_files_of_its_answers_at_their_urls(
    tmp_path: Path, user: str, names: dict[str, str]
) -> None:
    headers = {"x-user": user}
    async with TestClient(create_api(Scripted(), store="memory:", files_store=f"file://{tmp_path}/files")) as client:
        answer = await client.post(PATH, json=body("file made", **names), headers=headers)
        [file] = answer.json()["files"]
        assert (await client.get(file["src"], headers=headers)).content == b"made"


def test_hanging_up_does_not_stop_the_answer(served: Served, key: str) -> None:
    headers = {"authorization": f"Bearer {key}"}
    with served.client(headers=headers) as client:
        steps = "stream Hel; hold door; stream lo"
        with client.stream("POST", PATH, json=body(steps, chat_id="gone", stream=True)) as answer:
            assert next(answer.iter_lines()) == 'data: {"text":"Hel"}'
        client.post(PATH, json=body("open door"))
        assert client.post(PATH, json=body("see", chat_id="gone")).json() == {"text": json.dumps([steps, "see"])}
        [thread] = client.get("/api/v1/threads", params={"contact_id": "gone"}).json()["threads"]
        events = client.get(f"/api/v1/threads/{thread['thread_id']}/events").json()["events"]
        assert {"role": "assistant", "content": "Hello"} in [event["event_data"] for event in events]
