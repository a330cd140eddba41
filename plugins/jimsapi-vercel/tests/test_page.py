"""A page with `useChat` of React, in Chromium: what a person sees, and what the buttons do."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from tests.clients.chromium import Chromium
from tests.node import run_node
from tests.plugins.distributions import install
from tests.serving import Served

TESTS = Path(__file__).parent

BOT = """
import asyncio

from jimsapi import JimsApp

doors = {}


async def answer(ctx):
    said = [message["content"] for message in ctx.history if message["role"] == "user"]
    command, _, argument = said[-1].partition(" ")
    if command == "refund":
        async with ctx.tool("find", {"order": argument}) as call:
            call.result = {"price": 20}
        answer = await ctx.ask("refund", "Refund 20 EUR?", options=["yes", "no"])
        ctx.send_message(f"Refund {argument}: {answer}")
    elif command == "guard":
        ctx.send_message(f"Guarded: {await ctx.ask('guard', 'Enter?', options=['yes', 'no'])}")
        await doors.setdefault(argument, asyncio.Event()).wait()
        ctx.send_message("entered")
    elif command == "hold":
        await ctx.stream("Wait, ")
        await doors.setdefault(argument, asyncio.Event()).wait()
        await ctx.stream("done")
    elif command == "open":
        doors.setdefault(argument, asyncio.Event()).set()
        ctx.send_message("open")
    else:
        for file in ctx.files:
            ctx.send_message(f"{file.name} {len(await file.read())}")
        ctx.send_message("You said " + ", ".join(said))


app = JimsApp(answer)
"""

PAGES = """
from pathlib import Path

from jimsapi import hookimpl
from jimsapi.asgi import Response


@hookimpl
def jimsapi_routes(router):
    @router.get("/page.js", public=True)
    async def script(request):
        return Response(Path(BUNDLE).read_bytes(), content_type="text/javascript")

    @router.get("/page", public=True)
    async def page(request):
        return Response(b"<body><script src='/page.js' type='module'></script></body>", content_type="text/html")
"""

SCRIPT = """
(async () => {
  const lines = () => [...document.querySelectorAll("article")]
    .map(message => [...message.querySelectorAll(".seen")].map(element => element.textContent).join("|"));
  const until = async (found, what) => {
    const end = Date.now() + 60000;
    for (; Date.now() < end; await new Promise(done => setTimeout(done, 20))) if (found()) return;
    throw new Error(`there is no ${what} in ${JSON.stringify(lines())} ${document.querySelector("pre")?.textContent}`);
  };
  const buttons = label => [...document.querySelectorAll("button")].filter(button => button.textContent === label);
  await until(() => window.openChat, "script");
  await openChat(CHAT);
  await until(() => document.querySelector("output"), "page");
  for (const { text, files, click, nth, sees, ends } of STEPS) {
    const dropped = new DataTransfer();
    for (const [name, type, content] of files ?? []) dropped.items.add(new File([content], name, { type }));
    document.querySelector("#files").files = dropped.files;
    document.querySelector("#text").value = text ?? "";
    const before = answers;
    if (click) buttons(click)[nth ?? 0].click();
    if (click && ends !== false) await until(() => answers > before, "answer");
    await until(() => lines().at(-1)?.endsWith(sees), sees);
    if (ends !== false) await until(() => document.querySelector("output").textContent === "ready", "end");
  }
  return lines();
})()
"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    with Chromium(tmp_path_factory.mktemp("chromium")) as browser:
        yield browser


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server with the bot and the page."""
    folder = tmp_path_factory.mktemp("site")
    bundle = str(folder / "page.js")
    run_node(TESTS / "bundle.mjs", page=str(TESTS / "page.mjs"), bundle=bundle)
    (folder / "bot.py").write_text(BOT)
    install(folder, "jimsapi-pages", PAGES.replace("BUNDLE", repr(bundle)))
    with Served("--app", "bot:app", "--files-store", f"file://{folder}/files", folder=folder) as served:
        yield served


class Person:
    """A person with one chat. `does` opens the page, as loading it again does, and returns what it shows at the end."""

    def __init__(self, browser: Chromium, site: Served) -> None:
        self.browser = browser
        self.url = f"{site.url}/page"
        self.chat = str(uuid4())

    def does(self, *steps: dict[str, Any], chat: str | None = None) -> list[str]:
        script = SCRIPT.replace("CHAT", json.dumps(chat or self.chat)).replace("STEPS", json.dumps(steps))
        seen: list[str] = self.browser.evaluate(self.url, script)
        return seen


@pytest.fixture
def person(browser: Chromium, site: Served) -> Person:
    return Person(browser, site)


def say(text: str, sees: str, **more: Any) -> dict[str, Any]:
    return {"click": "Send", "text": text, "sees": sees, **more}


ASKED = ["refund shoes", "find output-available|refund approval-requested: Refund 20 EUR?"]


@pytest.mark.parametrize(
    ("button", "state", "answer"), [("Approve", "output-available", "yes"), ("Deny", "output-denied", "no")]
)
def test_a_person_answers_an_approval_after_a_reload(person: Person, button: str, state: str, answer: str) -> None:
    asked = say("refund shoes", "Refund 20 EUR?")
    assert person.does(asked) == ASKED
    answered = {"click": button, "sees": f"Refund shoes: {answer}"}
    find = "find output-available"  # twice: the pipeline runs again from the top
    seen = ["refund shoes", f"{find}|refund {state}: Refund 20 EUR?|{find}|Refund shoes: {answer}"]
    assert person.does({"sees": "Refund 20 EUR?"}, answered) == seen
    assert person.does({"sees": f"Refund shoes: {answer}"}) == seen


def test_a_person_approves_on_the_page_that_asked(person: Person) -> None:
    seen = person.does(
        say("refund hat", "Refund 20 EUR?"), {"click": "Approve", "sees": "Refund hat: yes"}, say("bye", "bye")
    )
    assert len(seen) == 4
    assert seen[3] == "You said refund hat, bye"


def test_a_person_regenerates_and_edits(person: Person) -> None:
    person.does(say("one", "You said one"), say("two", "You said one, two"))
    again = {"click": "Regenerate", "sees": "You said one, two"}
    edit = {"click": "Edit", "nth": 0, "text": "ONE", "sees": "You said ONE"}
    assert person.does(again, edit) == ["ONE", "You said ONE"]
    assert person.does(say("three", "You said ONE, three"))[2:] == ["three", "You said ONE, three"]


def test_a_person_sends_a_file_and_finds_it_again(person: Person) -> None:
    person.does(say("look", "You said look", files=[["a.txt", "text/plain", "hello"]]))
    assert person.does({"sees": "You said look"}) == ["a.txt|look", "a.txt 5|You said look"]


def test_a_page_that_is_loaded_again_goes_on_with_the_answer(person: Person) -> None:
    door = str(uuid4())
    person.does(say(f"hold {door}", "Wait, ", ends=False))
    seen = person.does({"sees": "Wait, ", "ends": False})
    assert seen[0] == f"hold {door}"
    person.does(say(f"open {door}", "open"), chat=str(uuid4()))
    assert person.does({"sees": "Wait, done"}) == [f"hold {door}", "Wait, done"]


def test_a_page_that_is_loaded_again_goes_on_with_the_answer_to_an_approval(person: Person) -> None:
    door = str(uuid4())
    guarded = {"click": "Approve", "sees": "Guarded: yes", "ends": False}
    person.does(say(f"guard {door}", "Enter?"), guarded)
    approved = "guard output-available: Enter?"
    seen = person.does({"sees": "Guarded: yes", "ends": False})
    assert seen == [f"guard {door}", approved, "Guarded: yes"]
    person.does(say(f"open {door}", "open"), chat=str(uuid4()))
    assert person.does({"sees": "entered"}) == [f"guard {door}", f"{approved}|Guarded: yes|entered"]
