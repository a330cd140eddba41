"""Pages in Chromium, that a route of a plugin serves."""

import json
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.clients.chromium import Chromium
from tests.clients.conftest import KEY, SCRIPTED
from tests.clients.conversation import check_conversation, cut_short, messages
from tests.plugins.distributions import install
from tests.serving import Served


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    with Chromium(tmp_path_factory.mktemp("chromium")) as browser:
        yield browser


def converse(browser: Chromium, page: str, **scenario: Any) -> Any:
    return browser.evaluate(page, f"converse({json.dumps(scenario)})")


def test_a_page_converses_by_fetch_with_a_token_and_goes_on_where_it_was_cut(
    browser: Chromium, served: Served, headers: dict[str, str]
) -> None:
    sent = messages("page-fetch")
    with cut_short(served, "page-fetch", headers) as proxy:
        told = converse(browser, f"{proxy.url}/pages/fetch.html", headers=headers, contact="page-fetch", messages=sent)
        assert proxy.cut.is_set()
    check_conversation(served, told["turns"], sent, headers)


def test_a_page_converses_by_event_source_and_comes_back_by_itself(browser: Chromium, public: Served) -> None:
    sent = messages("page-events")
    with cut_short(public, "page-events", {}) as proxy:
        page = f"{proxy.url}/pages/event_source.html"
        told = converse(browser, page, url="", headers={}, contact="page-events", messages=sent, stay=True)
        assert proxy.cut.is_set()
    check_conversation(public, told["turns"], sent, {})
    assert told["settled"] == {"closed": True, "more": []}


def test_a_page_tells_the_error_of_a_run_from_a_lost_connection(browser: Chromium, public: Served) -> None:
    page = f"{public.url}/pages/event_source.html"
    told = converse(browser, page, url="", headers={}, contact="page-error", messages=["stream Hel; raise no"])
    [[started, delta, error]] = told["turns"]
    assert (started[0], delta[0]) == ("started", "delta")
    assert error == ["error", {"detail": "Pipeline error: no"}, "end"]


def test_a_page_of_another_origin_reads_answers_only_where_that_origin_is_allowed(
    browser: Chromium, public: Served, served: Served, folder: Path, headers: dict[str, str]
) -> None:
    def ask(url: str) -> Any:
        request = {
            "method": "POST",
            "headers": {**headers, "content-type": "application/json", "idempotency-key": "page"},
            "body": json.dumps({"contact_id": "page-cors", "message": "say hi"}),
        }
        read = "async answer => [answer.status, answer.headers.get('x-run-id') !== null]"
        script = f"fetch({json.dumps(url)}, {json.dumps(request)}).then({read}).catch(error => error.name)"
        return browser.evaluate(f"{public.url}/pages/fetch.html", script)

    with Served(*SCRIPTED, "--api-key", KEY, "--cors-origin", public.url, folder=folder) as api:
        assert ask(f"{api.url}/api/v1/chat") == [200, True]
    assert ask(f"{served.url}/api/v1/chat") == "TypeError"  # what fetch throws for an answer that it may not read


TICKETS = """
from jimsapi import *

class Ticket:
    name = "ticket"
    challenge = "Ticket"
    async def authenticate(self, connection):
        return Identity("t") if connection.headers.get("authorization") == "Ticket for/one=" else None

class Stamp:
    name = "stamp"
    security_scheme = {"type": "apiKey", "in": "header", "name": "x-stamp"}
    async def authenticate(self, connection):
        return Identity("s") if connection.headers.get("x-stamp") == "blue" else None

class Both:
    @hookimpl
    def jimsapi_auth_provider(self):
        return Stamp()

@hookimpl
def jimsapi_auth_provider():
    return Ticket()
"""


@pytest.fixture
def ticketed(tmp_path: Path) -> Iterator[Served]:
    """A server whose providers have schemes of their own."""
    install(tmp_path, "a-ticket", TICKETS)
    install(tmp_path, "b-stamp", "from a_ticket import Both", point="stamp = b_stamp:Both")
    with Served(*SCRIPTED, folder=tmp_path) as server:
        yield server


def test_the_page_of_the_documentation_offers_the_schemes_of_plugins(browser: Chromium, ticketed: Served) -> None:
    script = """
    (async () => {
      const until = async found => { while (!found()) await new Promise(done => setTimeout(done, 10)); };
      const select = document.getElementById("scheme"), input = document.getElementById("credentials");
      await until(() => select.options.length);
      const box = [...document.querySelectorAll("details")].find(box => box.querySelector("code").textContent === PATH);
      const output = box.querySelector("pre"), answers = [];
      for (const [scheme, value] of GIVEN) {
        [select.value, input.value, output.textContent] = [scheme, value, ""];
        box.querySelector("input").value = "ann";
        box.querySelector("button").click();
        await until(() => output.textContent.length > 1);
        answers.push(output.textContent.slice(0, 3));
      }
      return [[...select.options].map(option => option.value), answers];
    })()
    """
    given = [("Ticket", "for/one="), ("Ticket", "Ticket for/one="), ("header x-stamp", "blue"), ("Ticket", "blue")]
    given.append(("header Authorization", "Ticket for/one="))
    script = script.replace("GIVEN", json.dumps(given)).replace("PATH", json.dumps("/api/v1/threads"))
    offered, answers = browser.evaluate(f"{ticketed.url}/docs", script)
    assert offered == ["Ticket", "header x-stamp", "header Authorization"]
    assert answers == ["200", "200", "200", "401", "200"]


PHOTOS = """
from typing import Annotated

import msgspec
from jimsapi import *
from jimsapi.asgi.forms import read_form

class Caption(msgspec.Struct):
    title: Annotated[str, msgspec.Meta(description="Below the photo.")]

@hookimpl
def jimsapi_routes(router):
    @router.post("/photos", form=Caption, files=["photo"])
    async def add(request):
        async with read_form(request) as form:
            return [form.typed(Caption).title, (await form.file("photo").read()).decode()]
"""


def test_the_page_of_the_documentation_sends_a_form_with_a_file(browser: Chromium, tmp_path: Path) -> None:
    script = """
    (async () => {
      const until = async found => { while (!found()) await new Promise(done => setTimeout(done, 10)); };
      const find = () => [...document.querySelectorAll("details")].find(box =>
        box.querySelector("code").textContent === "/photos");
      await until(find);
      const [title, photo] = find().querySelectorAll("input"), output = find().querySelector("pre");
      title.value = "a cat";
      const files = new DataTransfer();
      files.items.add(new File(["meow"], "cat.txt"));
      photo.files = files.files;
      find().querySelector("button").click();
      await until(() => output.textContent.length > 1);
      const [status, answer] = output.textContent.split("\\n\\n");
      return [title.type, photo.type, status.slice(0, 3), JSON.parse(answer)];
    })()
    """
    install(tmp_path, "acme-photos", PHOTOS)
    with Served(*SCRIPTED, folder=tmp_path) as server:
        assert browser.evaluate(f"{server.url}/docs", script) == ["text", "file", "200", ["a cat", "meow"]]


def test_a_page_opens_a_websocket_with_credentials_of_any_scheme(browser: Chromium, ticketed: Served) -> None:
    script = """
    (async (subprotocols, auth) => {
      const ws = new WebSocket(location.origin.replace("http", "ws") + "/api/v1/chat/ws", subprotocols);
      const next = () => new Promise((resolve, reject) => {
        ws.onmessage = message => resolve(JSON.parse(message.data));
        ws.onclose = event => reject(new Error("closed with " + event.code));
      });
      await new Promise((resolve, reject) => { [ws.onopen, ws.onerror] = [resolve, reject]; });
      if (auth) ws.send(JSON.stringify({type: "auth", authorization: auth}));
      ws.send(JSON.stringify({type: "chat", contact_id: "ann", message: "send hi"}));
      let frame = await next();
      while (!["result", "error"].includes(frame.type)) frame = await next();
      ws.close();
      return [ws.protocol, frame.assistant_messages];
    })
    """
    encoded = "base64url.authorization." + urlsafe_b64encode(b"Ticket for/one=").rstrip(b"=").decode()
    for subprotocols, auth in ((["jims.chat", encoded], None), (["jims.chat"], "Ticket for/one=")):
        call = f"{script.strip()}({json.dumps(subprotocols)}, {json.dumps(auth)})"
        assert browser.evaluate(f"{ticketed.url}/docs", call) == ["jims.chat", ["hi"]]


def test_the_page_of_a_private_documentation_asks_for_credentials_and_then_shows_it(browser: Chromium) -> None:
    script = """
    (async () => {
      const until = async found => { while (!found()) await new Promise(done => setTimeout(done, 10)); };
      const main = document.getElementById("operations"), input = document.getElementById("credentials");
      await until(() => main.querySelector("button"));
      const refused = [main.textContent, document.querySelectorAll("details").length];
      for (const key of ["wrong", "the-key-of-this-test"]) {
        input.value = key;
        main.querySelector("button").click();
        if (key === "wrong") await new Promise(done => setTimeout(done, 300));
        else await until(() => main.querySelector("details"));
        refused.push(main.querySelectorAll("details").length > 0);
      }
      return refused;
    })()
    """
    with Served("--app", "tests.apps.scripted:app", "--docs", "private", "--api-key", "the-key-of-this-test") as server:
        asked, operations, *shown = browser.evaluate(f"{server.url}/docs", script)
        assert "only to callers with credentials" in asked
        assert (operations, shown) == (0, [False, True])
