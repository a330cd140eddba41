"""A model that reads questions and phrases answers: a real server on this machine, well-behaved or not."""

import asyncio
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from examples.interests import answer_interests
from examples.interests.answer import Answer
from examples.interests.model import DEFAULT_BASE_URL, Model, configured_model
from jimsapi import StatusEvent, ThreadContext

pytestmark = pytest.mark.anyio

KEY = "sk-very-secret"
GENEVA = ["Quokkas", "Slide Rules", "Mosaic", "Eating Disorders", "Tantric", "Marrakesh"]
PLAIN = f"Geneva Durben is interested in {', '.join(GENEVA)}."
FRIENDLY = f"Oh, Geneva Durben? She loves {', '.join(GENEVA)}!"
QUESTION = "What are Geneva Durben's interests?"


class ModelServer:
    """Speaks as much of the protocol as the example needs. `reply` is the status and the body of the next answers."""

    def __init__(self) -> None:
        self.reply: tuple[int, bytes] = (200, b"")
        self.requests: list[tuple[str, dict[str, str], Any]] = []
        self.reached = threading.Event()
        self.released = threading.Event()
        self.released.set()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                outer.requests.append((self.path, {k.lower(): v for k, v in self.headers.items()}, body))
                outer.reached.set()
                outer.released.wait(30)
                status, content = outer.reply
                self.send_response(status)
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.base_url = f"http://127.0.0.1:{self._server.server_port}/v1"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    def says(self, text: Any, **usage: Any) -> None:
        message = {"choices": [{"message": {"role": "assistant", "content": text}}], "usage": usage}
        self.reply = 200, json.dumps(message).encode()

    def stop(self) -> None:
        self.released.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def server() -> Iterator[ModelServer]:
    server = ModelServer()
    yield server
    server.stop()


@pytest.fixture
def configured(server: ModelServer, monkeypatch: pytest.MonkeyPatch) -> ModelServer:
    monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    return server


async def ask(message: str = QUESTION) -> tuple[str, dict[str, Any]]:
    """The answer, and the technical facts. The key is in none of it."""
    ctx = ThreadContext.for_test(message)
    await answer_interests(ctx)
    said, processed = (event.event_data for event in ctx.outgoing_events)
    assert said["content"] == processed["answer"]
    assert KEY not in json.dumps([said, processed])
    return said["content"], processed["technical_info"]


async def test_the_model_phrases_what_the_graph_found(configured: ModelServer) -> None:
    configured.says(FRIENDLY, prompt_tokens=120, completion_tokens=30, total_tokens=150)
    text, info = await ask()
    assert text == FRIENDLY
    assert info["model_used"] == "gpt-4.1-mini"
    assert info["model_stats"] == {
        "gpt-4.1-mini": {"requests_count": 1, "prompt_tokens": 120, "completion_tokens": 30, "total_tokens": 150}
    }
    assert info["num_cypher_queries"] == 1
    assert "model_error" not in info


async def test_the_model_is_sent_the_question_the_rows_and_the_key(configured: ModelServer) -> None:
    configured.says(FRIENDLY)
    await ask()
    ((path, headers, body),) = configured.requests
    assert path == "/v1/chat/completions"
    assert headers["authorization"] == f"Bearer {KEY}"
    assert body["model"] == "gpt-4.1-mini"
    assert json.loads(body["messages"][-1]["content"]) == {"question": QUESTION, "rows": GENEVA, "plain_answer": PLAIN}


async def test_the_remark_on_a_slip_stays_in_front(configured: ModelServer) -> None:
    configured.says(FRIENDLY)
    text, _ = await ask("What are Genva Durben's interests?")
    assert text == f"No “Genva Durben”; the nearest is Geneva Durben. {FRIENDLY}"


@pytest.mark.parametrize("message", ["hello", "What does Harry Potter like?", "Who likes Competitive Napping?"])
async def test_without_rows_the_model_is_not_asked(configured: ModelServer, message: str) -> None:
    _, info = await ask(message)
    assert configured.requests == []
    assert (info["model_used"], info["model_stats"]) == ("none", {})


OPEN = "Which folks are keen about Quokkas yet never about Mosaic?"
OPEN_QUERY = json.dumps({"ask": "list", "find": "people", "all": ["Quokkas"], "none": ["Mosaic"]})


async def test_a_question_that_the_grammar_cannot_read_is_read_by_the_model_and_answered_by_the_graph(
    configured: ModelServer,
) -> None:
    configured.says(OPEN_QUERY, prompt_tokens=300, completion_tokens=20)
    text, info = await ask(OPEN)
    assert text.startswith("I read that as: people interested in Quokkas, but not in Mosaic. ")
    assert text.endswith(": Iñaki Etxarte, Siobhán O'Dwyer.")
    assert info["model_used"] == "gpt-4.1-mini"
    assert info["model_stats"] == {"gpt-4.1-mini": {"requests_count": 1, "prompt_tokens": 300, "completion_tokens": 20}}
    assert info["num_cypher_queries"] == 1
    ((path, headers, body),) = configured.requests
    assert path == "/v1/chat/completions"
    assert headers["authorization"] == f"Bearer {KEY}"
    assert body["messages"][-1] == {"role": "user", "content": OPEN}


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        ("Iñaki Etxarte!", "the model's reading is not JSON"),
        (OPEN_QUERY.replace("Mosaic", "Yodelling"), "the model's reading has a name that the question does not have"),
        (OPEN_QUERY.replace(', "none": ["Mosaic"]', ""), "the model's reading lacks a name that the question has"),
    ],
)
async def test_if_the_model_reads_something_else_the_question_is_refused_and_the_failure_told(
    configured: ModelServer, reply: str, error: str
) -> None:
    configured.says(reply, prompt_tokens=7)
    text, info = await ask(OPEN)
    assert text.startswith("I did not understand that.")
    assert info["model_error"] == error
    assert info["model_used"] == "none"
    assert info["model_stats"] == {"gpt-4.1-mini": {"requests_count": 1, "prompt_tokens": 7}}


async def test_a_model_that_cannot_read_the_question_either_leaves_it_unanswered(configured: ModelServer) -> None:
    configured.says('{"ask": "unknown"}')
    text, info = await ask(OPEN)
    assert text.startswith("I did not understand that.")
    assert "model_error" not in info


@pytest.mark.parametrize(
    "message",
    [
        "",
        "?!",
        "Thank you!",
        "Does Geneva Durben like Quokkas?",
        "How many people like Quokkas?",
        "What is Geneva Durben's favourite interest?",
        "Do they like Quokkas?",
        "Who likes Quokkas and Mosaic or Yodelling?",
        f"Which folks are keen about Quokkas {'very ' * 60}?",
    ],
)
async def test_the_model_does_not_read_what_the_grammar_answers_or_refuses_for_a_reason(
    configured: ModelServer, message: str
) -> None:
    _, info = await ask(message)
    assert configured.requests == []
    assert info["model_stats"] == {}


async def test_a_server_that_fails_leaves_the_question_unanswered(configured: ModelServer) -> None:
    configured.reply = (500, b"oops")
    text, info = await ask(OPEN)
    assert text.startswith("I did not understand that.")
    assert info["model_error"] == "the server answered with status 500"


REFUSED = json.dumps({"error": {"message": f"Incorrect API key provided: {KEY}"}}).encode()


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        ((401, REFUSED), "the server answered with status 401"),
        ((500, b"oops"), "the server answered with status 500"),
        ((302, b""), "the server answered with status 302"),
        ((200, b"not JSON"), "the server's answer is not JSON"),
        ((200, b"\xff\xfe"), "the server's answer is not JSON"),
        ((200, b"[]"), "the server's answer holds no text"),
        ((200, b'{"choices": []}'), "the server's answer holds no text"),
        ((200, b'{"choices": [{"message": {"content": null}}]}'), "the server's answer holds no text"),
        ((200, b'{"choices": [{"message": {"content": "  "}}]}'), "the server's answer holds no text"),
        ((200, b'{"choices": null, "usage": "much"}'), "the server's answer holds no text"),
    ],
)
async def test_if_the_model_fails_the_plain_answer_is_sent_and_the_failure_told(
    configured: ModelServer, reply: tuple[int, bytes], error: str
) -> None:
    configured.reply = reply
    text, info = await ask()
    assert text == PLAIN
    assert info["model_error"] == error
    assert info["model_used"] == "none"
    assert info["model_stats"] == {"gpt-4.1-mini": {"requests_count": 1}}


@pytest.mark.parametrize(
    ("said", "error"),
    [
        ("Geneva Durben likes Quokkas, Slide Rules, Mosaic, Eating Disorders and Tantric.", "left out Marrakesh"),
        (f"{FRIENDLY} And Zoetropes.", "added Zoetropes"),
        (FRIENDLY.replace("Mosaic", "Mosaics"), "left out Mosaic"),
    ],
)
async def test_a_text_that_is_incomplete_or_untrue_is_not_sent(configured: ModelServer, said: str, error: str) -> None:
    configured.says(said, prompt_tokens=7)
    text, info = await ask()
    assert text == PLAIN
    assert info["model_error"] == f"the model {error}"
    assert info["model_stats"] == {"gpt-4.1-mini": {"requests_count": 1, "prompt_tokens": 7}}


def answer_of(*names: str, all_names: tuple[str, ...] = ()) -> Answer:
    return Answer("plain", names=names, all_names=(*names, *all_names))


@pytest.mark.parametrize(
    ("said", "answer", "error"),
    [
        ("only Apple Cider", answer_of("Cider", "Apple Cider"), "the model left out Cider"),
        ("Apple Cider and cider", answer_of("Cider", "Apple Cider"), None),
        ("Apple Cider", answer_of("Apple Cider", all_names=("Cider",)), None),
        ("would love to go for Judo", answer_of("Judo", all_names=("Love", "Go")), None),
        ("Judo and Go", answer_of("Judo", all_names=("Love", "Go")), "the model added Go"),
        ("Siobhán O’Dwyer", answer_of("Siobhán O'Dwyer"), None),
        ("Chips Ahoy! and C++, (yes)", answer_of("Chips Ahoy!", "C++"), None),
    ],
)
async def test_names_are_told_from_parts_of_others_and_from_plain_words(
    server: ModelServer, said: str, answer: Answer, error: str | None
) -> None:
    server.says(said)
    phrasing = await Model("m", server.base_url).phrase("?", answer)
    assert (phrasing.text, phrasing.error) == (None if error else said, error)


async def test_a_model_that_takes_too_long_is_not_waited_for(server: ModelServer) -> None:
    server.released.clear()
    phrasing = await Model("m", server.base_url, timeout=0.05).phrase("?", answer_of("Go"))
    assert (phrasing.text, phrasing.error) == (None, "no answer within 0.05 s")


async def test_a_cancelled_run_does_not_take_the_model_for_slow(server: ModelServer) -> None:
    server.released.clear()
    asking = asyncio.create_task(Model("m", server.base_url).phrase("?", answer_of("Go")))
    assert await asyncio.to_thread(server.reached.wait, 30)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking


@pytest.mark.parametrize(
    "base_url",
    ["http://user:{KEY}@127.0.0.1:1/v1", "nonsense", "http://[broken", "ftp://127.0.0.1/v1", ""],
)
async def test_an_address_that_does_not_work_is_a_failure_that_names_no_secret(base_url: str) -> None:
    phrasing = await Model("m", base_url.format(KEY=KEY), KEY).phrase("?", answer_of("Go"))
    assert phrasing.error is not None
    assert phrasing.error.startswith("the request failed (")
    assert KEY not in phrasing.error


@pytest.mark.parametrize("key", ["sk-é\u2019", "sk-a\nb"])
async def test_a_key_that_cannot_be_sent_is_a_failure_and_not_shown(server: ModelServer, key: str) -> None:
    phrasing = await Model("m", server.base_url, key).phrase("?", answer_of("Go"))
    assert phrasing.text is None
    assert phrasing.error is not None
    assert phrasing.error.startswith("the request failed (")
    assert "sk-" not in phrasing.error


async def test_the_variables_choose_the_model_and_empty_ones_count_as_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    assert configured_model() is None
    monkeypatch.setenv("OPENAI_BASE_URL", "")
    monkeypatch.setenv("OPENAI_API_KEY", "")
    monkeypatch.setenv("OPENAI_MODEL", "")
    assert configured_model() is None
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    assert configured_model() == Model("gpt-4.1-mini", DEFAULT_BASE_URL, KEY)
    monkeypatch.setenv("OPENAI_MODEL", "small")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://localhost:1/v1")
    assert configured_model() == Model("small", "http://localhost:1/v1", KEY)


class Watcher:
    def __init__(self) -> None:
        self.told: list[StatusEvent | str] = []

    async def update_status(self, status: StatusEvent | str) -> None:
        self.told.append(status)


@pytest.mark.parametrize(
    ("question", "said", "told"),
    [
        (OPEN, OPEN_QUERY, StatusEvent("Reading the question", "reading")),
        (QUESTION, FRIENDLY, StatusEvent("Writing the answer", "writing")),
    ],
)
async def test_whoever_watches_is_told_what_the_model_does(
    configured: ModelServer, question: str, said: str, told: StatusEvent
) -> None:
    configured.says(said)
    watcher = Watcher()
    await answer_interests(ThreadContext.for_test(question).with_status_updater(watcher))
    assert watcher.told[-1] == told
