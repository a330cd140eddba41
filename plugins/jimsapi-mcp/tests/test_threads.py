"""Which thread a call continues, threads as resources, and who may name which threads and calls."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from mcp_wire import FORMS, PATH, TASKS, chat, error, legacy, modern, result, start_session, text, tool

from jimsapi import JimsApp, ThreadContext, create_api
from jimsapi.asgi.testing import TestClient
from tests.plugins.distributions import install

pytestmark = pytest.mark.anyio


async def bot(ctx: ThreadContext) -> None:
    """Repeat what was said in the thread."""
    said = str(ctx.get_last_user_message())
    if said == "ask":
        answer = await ctx.ask("colour", "Which colour?")
        ctx.send_message(f"So {answer}")
        return
    ctx.send_event("state.hidden", {"secret": True})
    ctx.send_message(" ".join(str(one["content"]) for one in ctx.history))


@pytest.fixture
def settings() -> dict[str, Any]:
    return {}


@pytest.fixture
async def client(settings: dict[str, Any]) -> AsyncIterator[TestClient]:
    async with TestClient(create_api(JimsApp(bot, private_events=["state.*"]), store="memory:", **settings)) as client:
        yield client


def who(user: str | None = None, **headers: str) -> dict[str, str]:
    """Headers that name a caller, and the person for whom it speaks."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return named if user is None else {"x-user": user, **named}


async def call(client: TestClient, name: str, headers: Mapping[str, str] | None = None, **arguments: Any) -> Any:
    return result(await client.post(PATH, **modern("tools/call", tool(name, **arguments), headers=headers)))


async def say(client: TestClient, message: str, headers: Mapping[str, str] | None = None, **arguments: Any) -> Any:
    found = await call(client, "chat", headers, message=message, **arguments)
    assert not found["isError"], found
    return found["structuredContent"]


async def test_a_call_without_a_thread_begins_one(client: TestClient) -> None:
    first, second = await say(client, "one"), await say(client, "two")
    assert (first["text"], second["text"]) == ("one", "two")
    assert first["thread_id"] != second["thread_id"]


@pytest.mark.parametrize("name", ["chat", "chat_start"])
@pytest.mark.parametrize("arguments", [{}, {"thread": "t"}])
async def test_a_call_that_is_repeated_with_its_idempotency_key_runs_once(
    client: TestClient, name: str, arguments: dict[str, str]
) -> None:
    key = {"idempotency-key": "k"}
    first, again = [await call(client, name, key, message="one", **arguments) for _ in range(2)]
    assert again["structuredContent"]["run_id"] == first["structuredContent"]["run_id"]
    other = await call(client, name, {"idempotency-key": "other"}, message="one", **arguments)
    assert other["structuredContent"]["run_id"] != first["structuredContent"]["run_id"]


@pytest.mark.parametrize("form", ["{}", "jims://threads/{}"])
async def test_the_thread_of_an_earlier_result_is_continued(client: TestClient, form: str) -> None:
    first = await say(client, "one")
    second = await say(client, "two", thread=form.format(first["thread_id"]))
    assert (second["text"], second["thread_id"]) == ("one one two", first["thread_id"])


@pytest.mark.parametrize("name", ["trip to Perth", "ü", "x" * 10_000])
async def test_a_name_of_the_client_begins_a_thread_once(client: TestClient, name: str) -> None:
    first = await say(client, "one", thread=name)
    second = await say(client, "two", thread=name)
    assert (second["text"], second["thread_id"]) == ("one one two", first["thread_id"])
    assert (await say(client, "three", thread=f"{name}."))["text"] == "three"


async def test_a_thread_that_does_not_exist_is_never_replaced_by_a_new_one(client: TestClient) -> None:
    found = await call(client, "chat", message="hi", thread=str(uuid4()))
    assert found["isError"]
    assert "not found" in text(found)


async def test_a_thread_of_the_chat_api_is_continued_and_read_there_again(client: TestClient) -> None:
    begun = (await client.post("/api/v1/chat", json={"contact_id": "bea", "message": "one"})).json()
    continued = await say(client, "two", thread=begun["thread_id"])
    assert continued["text"] == "one one two"
    body = {"contact_id": "bea", "message": "three", "thread_id": begun["thread_id"]}
    assert (await client.post("/api/v1/chat", json=body)).json()["assistant_messages"] == [
        "one one two one one two three"
    ]


# Long calls.


async def test_a_call_is_started_and_its_answer_fetched_later(client: TestClient) -> None:
    started = (await call(client, "chat_start", message="hi"))["structuredContent"]
    assert started["status"] in ("queued", "running", "completed")
    found = await call(client, "chat_get", run_id=started["run_id"], wait=20)
    assert text(found) == "hi"
    assert found["structuredContent"]["thread_id"] == started["thread_id"]


async def test_a_look_at_a_call_waits_until_it_ends() -> None:
    begun, released = asyncio.Event(), asyncio.Event()

    async def slow(ctx: ThreadContext) -> None:
        begun.set()
        await released.wait()
        ctx.send_message("done")

    async with TestClient(create_api(slow, store="memory:")) as client:
        run = (await call(client, "chat_start", message="hi"))["structuredContent"]["run_id"]
        await begun.wait()
        asyncio.get_running_loop().call_later(0.1, released.set)
        assert text(await call(client, "chat_get", run_id=run, wait=50)) == "done"


async def test_the_newest_call_of_a_thread_is_found_by_the_thread_alone(client: TestClient) -> None:
    await say(client, "one", thread="t")
    newest = await say(client, "two", thread="t")
    for thread in ("t", newest["thread_id"]):
        assert (await call(client, "chat_get", thread=thread))["structuredContent"]["run_id"] == newest["run_id"]
    assert (await call(client, "chat_get", thread="another"))["isError"]


async def test_a_call_that_has_ended_cannot_be_cancelled(client: TestClient) -> None:
    run = await say(client, "hi")
    found = await call(client, "chat_cancel", run_id=run["run_id"])
    assert found["isError"]
    assert "completed" in text(found)


# Resources.


async def read(client: TestClient, thread_id: str, headers: Mapping[str, str] | None = None) -> Any:
    uri = f"jims://threads/{thread_id}"
    found = result(await client.post(PATH, **modern("resources/read", {"uri": uri}, headers=headers)))
    [content] = found["contents"]
    assert (content["uri"], content["mimeType"]) == (uri, "application/json")
    assert (found["resultType"], found["ttlMs"], found["cacheScope"]) == ("complete", 0, "private")
    return json.loads(content["text"])


async def listed(client: TestClient, headers: Mapping[str, str] | None = None, **params: Any) -> Any:
    return result(await client.post(PATH, **modern("resources/list", params, headers=headers)))


async def test_there_is_one_template(client: TestClient) -> None:
    found = result(await client.post(PATH, **modern("resources/templates/list")))
    assert [one["uriTemplate"] for one in found["resourceTemplates"]] == ["jims://threads/{id}"]


async def test_a_thread_is_read_without_private_events(client: TestClient) -> None:
    thread = (await say(client, "one"))["thread_id"]
    await say(client, "ask", thread=thread)
    found = await read(client, thread)
    assert found["messages"] == [
        {"role": "user", "text": "one"},
        {"role": "assistant", "text": "one"},
        {"role": "user", "text": "ask"},
        {"role": "assistant", "text": "Which colour?"},
    ]
    assert "secret" not in json.dumps(found)


@pytest.mark.parametrize(("private_events", "texts"), [([], ["ask", "red"]), (["question.answered"], ["ask"])])
async def test_a_thread_is_read_without_answers_that_are_private(private_events: list[str], texts: list[str]) -> None:
    async with TestClient(create_api(JimsApp(bot, private_events=private_events), store="memory:")) as client:
        asked = await say(client, "ask")
        answers = {asked["questions"][0]["question_id"]: "red"}
        await say(client, "", thread=asked["thread_id"], answers=answers)
        messages = (await read(client, asked["thread_id"]))["messages"]
        assert [one["text"] for one in messages if one["role"] == "user"] == texts


@pytest.mark.parametrize("uri", ["jims://threads/x", f"jims://threads/{uuid4()}", "file:///etc/passwd", "", "x" * 9000])
async def test_a_resource_that_does_not_exist_is_an_error_of_the_era(client: TestClient, uri: str) -> None:
    found = error(await client.post(PATH, **modern("resources/read", {"uri": uri})), 400)
    assert found["code"] == -32602
    assert len(found["data"]["uri"]) <= 100
    session = await start_session(client)
    assert (
        error(await client.post(PATH, **legacy("resources/read", {"uri": uri}, session=session)), 200)["code"] == -32002
    )


@pytest.mark.parametrize("params", [{"uri": 5}, {}, {"uri": ["jims://threads/x"]}])
async def test_a_uri_that_is_no_text_is_refused(client: TestClient, params: dict[str, Any]) -> None:
    answer = await client.post(PATH, **modern("resources/read", params, headers={"mcp-name": None}))
    assert error(answer, 400)["code"] == -32602


@pytest.mark.usefixtures("people")
async def test_the_threads_of_the_callers_contact_are_listed_in_pages(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jimsapi_mcp.resources.PAGE", 2)
    threads = [(await say(client, f"talk {n}", who("ann")))["thread_id"] for n in range(3)]
    await say(client, "other", who("bea"))
    first = await listed(client, who("ann"))
    assert [one["uri"] for one in first["resources"]] == [f"jims://threads/{one}" for one in threads[:0:-1]]
    assert first["resources"][0]["name"] == "talk 2"
    second = await listed(client, who("ann"), cursor=first["nextCursor"])
    assert [one["name"] for one in second["resources"]] == ["talk 0"]
    assert "nextCursor" not in second
    assert (await read(client, threads[0], who("ann")))["messages"][0]["text"] == "talk 0"


@pytest.mark.usefixtures("people")
@pytest.mark.parametrize("cursor", ["nonsense", 5, "x" * 9000])
async def test_a_cursor_of_somebody_else_is_refused(client: TestClient, cursor: Any) -> None:
    answer = await client.post(PATH, **modern("resources/list", {"cursor": cursor}, headers=who("ann")))
    assert error(answer, 400)["code"] == -32602


async def test_a_public_server_lists_nobodys_threads(client: TestClient) -> None:
    await say(client, "hi")
    assert (await listed(client))["resources"] == []


# Who may name what.


async def everything(client: TestClient, owner: Mapping[str, str], stranger: Mapping[str, str]) -> None:
    """Check that a stranger can neither see nor change what an owner has begun, and cannot tell that it exists."""
    asked = await say(client, "ask", owner)
    names = [(asked["run_id"], asked["thread_id"]), (str(uuid4()), str(uuid4()))]
    seen = []
    for run, thread in names:
        answers = [
            await call(client, "chat_get", stranger, run_id=run),
            await call(client, "chat_get", stranger, thread=thread),
            await call(client, "chat_cancel", stranger, run_id=run),
            await call(client, "chat", stranger, message="hi", thread=thread),
            await call(
                client,
                "chat",
                stranger,
                message="",
                thread=thread,
                answers={asked["questions"][0]["question_id"]: "red"},
            ),
        ]
        assert all(one["isError"] for one in answers), answers
        for method, params in [
            ("tasks/get", {"taskId": run}),
            ("tasks/update", {"taskId": run, "inputResponses": {}}),
            ("tasks/cancel", {"taskId": run}),
            ("resources/read", {"uri": f"jims://threads/{thread}"}),
        ]:
            answer = await client.post(PATH, **modern(method, params, headers=stranger, capabilities=TASKS))
            answers.append(error(answer, 400))
        seen.append(json.dumps(answers).replace(run, "R").replace(thread, "T"))
    assert seen[0] == seen[1]
    assert asked["thread_id"] not in json.dumps(await listed(client, stranger))
    again = await call(client, "chat_get", owner, run_id=asked["run_id"])
    assert [one["text"] for one in again["structuredContent"]["questions"]] == ["Which colour?"]
    assert (await say(client, "red", owner, thread=asked["thread_id"]))["text"] == "So red"


@pytest.mark.usefixtures("people")
@pytest.mark.parametrize(
    ("owner", "stranger"), [("ann", "bea"), ("talker", "ann"), ("root", "talker"), ("ann", "talker"), ("root", "blank")]
)
async def test_a_caller_cannot_name_what_another_caller_has_begun(
    client: TestClient, owner: str, stranger: str
) -> None:
    await everything(client, who(owner), who(stranger))


@pytest.mark.usefixtures("people")
@pytest.mark.parametrize("settings", [{"mcp_contact_header": "x-person"}])
@pytest.mark.parametrize("user", ["root", "talker"])
@pytest.mark.parametrize("stranger", ["cat", None])
async def test_a_caller_that_speaks_for_many_people_names_only_what_belongs_to_the_one_of_the_request(
    client: TestClient, user: str, stranger: str | None
) -> None:
    owner = who(user, x_person="bea")
    await everything(client, owner, who(user) if stranger is None else who(user, x_person=stranger))


@pytest.mark.parametrize("settings", [{"mcp_contact_header": "x-person"}])
@pytest.mark.parametrize("stranger", [{"x-person": "cat"}, {}])
async def test_the_same_holds_on_a_public_server(client: TestClient, stranger: dict[str, str]) -> None:
    await everything(client, {"x-person": "bea"}, stranger)


@pytest.mark.parametrize("settings", [{"mcp_contact_header": "x-person"}])
async def test_the_header_names_the_contact_and_must_be_there_once(client: TestClient) -> None:
    thread = (await say(client, "hi", who(x_person="bea")))["thread_id"]
    listed_threads = (await client.get("/api/v1/threads?contact_id=bea")).json()["threads"]
    assert [one["thread_id"] for one in listed_threads] == [thread]
    assert [one["uri"] for one in (await listed(client, who(x_person="bea")))["resources"]] == [
        f"jims://threads/{thread}"
    ]
    sent = modern("tools/call", chat("hi"))
    twice = [*sent["headers"].items(), ("x-person", "bea"), ("x-person", "cat")]
    assert error(await client.post(PATH, json=sent["json"], headers=twice), 400)["code"] == 400


@pytest.mark.usefixtures("people")
@pytest.mark.parametrize("settings", [{"mcp_contact_header": "x-person"}])
async def test_the_header_does_not_free_a_caller_that_is_bound_to_a_contact(client: TestClient) -> None:
    thread = (await say(client, "hi", who("ann", x_person="bea")))["thread_id"]
    assert [one["uri"] for one in (await listed(client, who("ann")))["resources"]] == [f"jims://threads/{thread}"]
    assert (await listed(client, who("bea")))["resources"] == []


@pytest.mark.usefixtures("people")
async def test_a_holder_of_threads_that_is_bound_to_nobody_reads_all(client: TestClient) -> None:
    thread = (await say(client, "hi", who("ann")))["thread_id"]
    assert (await read(client, thread, who("root")))["messages"][0]["text"] == "hi"


@pytest.mark.usefixtures("people")
@pytest.mark.parametrize(
    ("settings", "stranger"),
    [({}, who("ann-talks")), ({"mcp_contact_header": "x-person"}, who("talker", x_person="ann"))],
)
async def test_threads_that_other_callers_have_begun_are_read_only_with_the_scope_threads(
    client: TestClient, stranger: dict[str, str]
) -> None:
    thread = (await say(client, "hi", who("ann")))["thread_id"]
    assert (await client.get("/api/v1/threads?contact_id=ann", headers=stranger)).status_code == 403
    assert (await listed(client, stranger))["resources"] == []
    answer = await client.post(PATH, **modern("resources/read", {"uri": f"jims://threads/{thread}"}, headers=stranger))
    assert error(answer, 400)["code"] == -32602


@pytest.mark.usefixtures("people")
async def test_a_caller_with_a_contact_of_its_own_reads_its_calls_without_the_scope_threads(client: TestClient) -> None:
    thread = (await say(client, "hi", who("talker")))["thread_id"]
    assert [one["uri"] for one in (await listed(client, who("talker")))["resources"]] == [f"jims://threads/{thread}"]
    assert (await read(client, thread, who("talker")))["messages"][0]["text"] == "hi"


@pytest.mark.usefixtures("people")
@pytest.mark.parametrize(
    ("user", "status"), [("reader", 403), ("nobody", 403), ("wrong", 401), ("denied", 403), (None, 401)]
)
async def test_a_caller_without_the_scope_chat_is_refused_in_the_form_of_json_rpc(
    client: TestClient, user: str | None, status: int
) -> None:
    answer = await client.post(PATH, **modern("tools/list", headers=who(user)))
    assert error(answer, status)["code"] == status
    assert status == 403 or "www-authenticate" in answer.headers


OAUTH = """
    from jimsapi import Identity, hookimpl

    class Provider:
        name, challenge = "oauth", 'Bearer realm="chat"'
        authorization_servers = ["https://id.example.org"]

        async def authenticate(self, connection):
            return Identity("ann", contact_id="ann", scopes=("threads",))

    @hookimpl
    def jimsapi_auth_provider():
        return Provider()
"""


async def test_a_caller_whose_token_lacks_the_scope_chat_learns_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, "acme-oauth", OAUTH)
    monkeypatch.syspath_prepend(str(tmp_path))
    async with TestClient(create_api(bot, store="memory:")) as client:
        answer = await client.post(PATH, **modern("tools/list"))
        assert error(answer, 403)["code"] == 403
        metadata = "http://testserver/.well-known/oauth-protected-resource/mcp"
        assert answer.headers["www-authenticate"] == (
            f'Bearer resource_metadata="{metadata}", scope="chat", error="insufficient_scope"'
        )


@pytest.mark.usefixtures("people")
async def test_a_state_is_worth_nothing_to_another_caller(client: TestClient) -> None:
    asked = modern("tools/call", chat("ask"), headers=who("ann"), capabilities=FORMS)
    waiting = result(await client.post(PATH, **asked))
    [question] = waiting["inputRequests"]
    responses = {question: {"action": "accept", "content": {"answer": "red"}}}
    params = {**chat("ask"), "inputResponses": responses, "requestState": waiting["requestState"]}
    for user in ("bea", "talker", "root"):
        answer = await client.post(PATH, **modern("tools/call", params, headers=who(user), capabilities=FORMS))
        assert error(answer, 400)["code"] == -32602
    found = result(await client.post(PATH, **modern("tools/call", params, headers=who("ann"), capabilities=FORMS)))
    assert text(found) == "So red"
