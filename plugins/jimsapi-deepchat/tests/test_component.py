"""The component itself, in Chromium: what people see, and what they send."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.clients.chromium import Chromium
from tests.node import install as install_packages
from tests.plugins.distributions import install
from tests.serving import Served

BUNDLE = "node_modules/deep-chat/dist/deepChat.bundle.js"

BOT = """
from jimsapi import JimsApp


async def answer(ctx):
    text = str(ctx.get_last_user_message())
    if text == "buttons":
        ctx.send_message_with_buttons("Choose", [{"text": "one & only"}, {"text": "two"}])
    elif text == "fail":
        raise RuntimeError("no model")
    elif text.startswith("refund"):
        sure = await ctx.ask("refund", "Refund 20 EUR?", options=["yes", "no"])
        ctx.send_message(f"{sure} to {text}")
    elif text != "silent":
        for file in ctx.files:
            ctx.send_message(f"{file.name} {file.type} {len(await file.read())}")
        await ctx.stream("You said ")
        ctx.send_message(f"You said {text}")


app = JimsApp(answer)
"""

PAGES = """
from pathlib import Path

from jimsapi import hookimpl
from jimsapi.asgi import Response


@hookimpl
def jimsapi_routes(router):
    @router.get("/bundle.js", public=True)
    async def bundle(request):
        return Response(Path(BUNDLE).read_bytes(), content_type="text/javascript")

    @router.get("/page", public=True)
    async def page(request):
        return Response(b"<script src='/bundle.js' type='module'></script><body></body>", content_type="text/html")
"""

SCRIPT = """
(async () => {
  const until = async (found, what) => {
    const end = Date.now() + 60000;
    for (; Date.now() < end; await new Promise(done => setTimeout(done, 20))) if (found()) return;
    throw new Error("there is no " + what + " in " + JSON.stringify(chat.getMessages()));
  };
  await customElements.whenDefined("deep-chat");
  const chat = document.createElement("deep-chat");
  let responses = 0;
  Object.assign(chat, OPTIONS, { responseInterceptor: response => (responses += 1, response) });
  if (HISTORY) chat.history = await (await fetch(HISTORY)).json();
  document.body.append(chat);
  await until(() => chat.shadowRoot?.querySelector("#text-input"), "input");
  await new Promise(done => setTimeout(done, 100));
  for (const step of STEPS) {
    const before = responses;
    if (step.click) {
      [...chat.shadowRoot.querySelectorAll("button")].find(button => button.textContent === step.click).click();
    } else {
      const files = (step.files || []).map(([name, type, text]) => new File([text], name, { type }));
      chat.submitUserMessage(files.length ? { text: step.text, files } : { text: step.text });
    }
    const shown = () => [...chat.shadowRoot.querySelectorAll(".message-bubble, .error-message-text, button")]
      .map(element => element.textContent).join("|");
    await until(() => responses > before && shown().includes(step.sees), step.sees);
    await until(() => !chat.shadowRoot.querySelector("#submit-button[aria-label=Stop], .loading-message-text"), "end");
  }
  return {
    messages: chat.getMessages().map(({ role, text, html, files }) => ({ role, text, html, files: files?.length })),
    buttons: [...chat.shadowRoot.querySelectorAll(".deep-chat-suggestion-button")].map(button => button.textContent),
    errors: [...chat.shadowRoot.querySelectorAll(".error-message-text")].map(element => element.textContent.trim()),
  };
})()
"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    with Chromium(tmp_path_factory.mktemp("chromium")) as browser:
        yield browser


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server with the bot, and a page with the component."""
    tests = Path(__file__).parent
    install_packages(tests)
    folder = tmp_path_factory.mktemp("site")
    (folder / "bot.py").write_text(BOT)
    install(folder, "jimsapi-pages", PAGES.replace("BUNDLE", repr(str(tests / BUNDLE))))
    with Served("--app", "bot:app", "--files-store", f"file://{folder}/files", folder=folder) as served:
        yield served


def talk(
    browser: Chromium, site: Served, *steps: dict[str, Any], contact: str, stream: bool = False, history: str = ""
) -> Any:
    """What a person sees who says or clicks one thing after another, each as soon as the answer is there."""
    options = {
        "connect": {"url": "/deep-chat", "stream": stream, "additionalBodyProps": {"contact_id": contact}},
        "mixedFiles": True,
        "errorMessages": {"displayServiceErrorMessages": True},
    }
    script = SCRIPT.replace("OPTIONS", json.dumps(options)).replace("STEPS", json.dumps(steps))
    script = script.replace("HISTORY", json.dumps(history))
    return browser.evaluate(f"{site.url}/page", script)


def texts(seen: Any) -> list[str]:
    return [message["text"] for message in seen["messages"] if message.get("text")]


@pytest.mark.parametrize("stream", [False, True])
def test_a_person_reads_answers(browser: Chromium, site: Served, stream: bool) -> None:
    steps = [{"text": "one", "sees": "You said one"}, {"text": "two", "sees": "You said two"}]
    seen = talk(browser, site, *steps, contact=f"reads {stream}", stream=stream)
    assert texts(seen) == ["one", "You said one", "two", "You said two"]


@pytest.mark.parametrize("stream", [False, True])
def test_a_person_reads_the_error_of_a_run(browser: Chromium, site: Served, stream: bool) -> None:
    seen = talk(browser, site, {"text": "fail", "sees": "no model"}, contact=f"fails {stream}", stream=stream)
    assert seen["errors"] == ["Pipeline error: no model"]


@pytest.mark.parametrize("stream", [False, True])
def test_a_person_sends_files_with_a_text_and_alone(browser: Chromium, site: Served, stream: bool) -> None:
    file = ["a.txt", "text/plain", "hello"]
    steps = [
        {"text": "look", "files": [file, ["b.txt", "text/plain", "hi"]], "sees": "You said look"},
        {"files": [["c.txt", "text/plain", "alone"]], "sees": "c.txt text/plain 5"},
    ]
    seen = talk(browser, site, *steps, contact=f"files {stream}", stream=stream)
    said = "\n\n".join(texts(seen))
    assert "a.txt text/plain 5\n\nb.txt text/plain 2\n\nYou said look" in said
    assert seen["errors"] == []


def test_a_person_answers_a_question_by_its_button(browser: Chromium, site: Served) -> None:
    steps = [{"text": "refund my shoes", "sees": "Refund 20 EUR?"}, {"click": "yes", "sees": "yes to refund my shoes"}]
    seen = talk(browser, site, *steps, contact="asked")
    assert texts(seen)[-1] == "yes to refund my shoes"
    assert seen["buttons"] == []


def test_a_person_answers_a_question_of_a_stream_by_its_text(browser: Chromium, site: Served) -> None:
    steps = [{"text": "refund my hat", "sees": "no"}, {"text": "no", "sees": "no to refund my hat"}]
    seen = talk(browser, site, *steps, contact="asked in a stream", stream=True)
    assert texts(seen)[-1] == "no to refund my hat"


def test_buttons_of_a_message_are_shown_as_they_are(browser: Chromium, site: Served) -> None:
    seen = talk(browser, site, {"text": "buttons", "sees": "Choose"}, contact="buttons")
    assert seen["buttons"] == ["one & only", "two"]


def test_a_page_that_was_loaded_again_shows_the_conversation_and_goes_on(browser: Chromium, site: Served) -> None:
    steps: list[dict[str, Any]] = [
        {"text": "look", "files": [["a.txt", "text/plain", "hello"]], "sees": "You said look"},
        {"text": "refund my shoes", "sees": "Refund 20 EUR?"},
    ]
    talk(browser, site, *steps, contact="reloads")
    history = "/deep-chat/history?contact_id=reloads"
    seen = talk(browser, site, {"text": "yes", "sees": "yes to"}, contact="reloads", history=history)
    assert texts(seen) == [
        "look",
        "a.txt text/plain 5\n\nYou said look",
        "refund my shoes",
        "Refund 20 EUR?\n- yes\n- no",
        "yes",
        "yes to refund my shoes",
    ]
    assert [message["files"] for message in seen["messages"] if message.get("files")] == [1]


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_without_text_is_no_error(browser: Chromium, site: Served, stream: bool) -> None:
    steps = [{"text": "silent", "sees": ""}, {"text": "after", "sees": "You said after"}]
    seen = talk(browser, site, *steps, contact=f"silent {stream}", stream=stream)
    assert seen["errors"] == []
