"""What the protocols of others share: whose thread a message belongs to, what a run says, and how refusals are told."""

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import orjson
import pytest

from jimsapi import HTTPError, ThreadContext
from jimsapi.asgi.connection import Request
from jimsapi.asgi.errors import ValidationError
from jimsapi.asgi.response import JSONResponse
from jimsapi.asgi.types import Message
from jimsapi.runs.admission import PUBLIC, Admission
from jimsapi.runs.errors import PipelineFailed, RunBroken, ServerDraining, ThreadBusy, TooManyRuns
from jimsapi.runs.limits import RunLimits
from jimsapi.runs.live import LiveRun
from jimsapi.runs.service import RunService
from jimsapi.runs.stream import MAX_ITEMS, Status
from jimsapi.threads.errors import RunNotFound, StoreUnavailable
from jimsapi.threads.event import NewEvent
from jimsapi.threads.ids import uuid7
from jimsapi.threads.message_files import FilesInMemory
from jimsapi.threads.run import ById
from jimsapi.threads.trace_context import TraceContext
from jimsapi.wire.answer import Refusal, data_event, failure, reworded
from jimsapi.wire.errors import error_answer
from jimsapi.wire.request import read_json
from jimsapi.wire.speech import (
    Failed,
    FilesSent,
    Finished,
    MessageEnded,
    MessagePiece,
    MessageStarted,
    ModelUsed,
    PersonAsked,
    PiecesMissed,
    ReasoningEnded,
    ReasoningPiece,
    ReasoningStarted,
    SourceNamed,
    SpokenItem,
    ToolEnded,
    ToolStarted,
    agent_items,
    as_one_text,
    one_text,
    spoken_items,
    spoken_run,
    stored_items,
)
from jimsapi.wire.turn import ThreadNames, Turn, answer_of, begin_turn
from tests.apps.scripted import Scripted
from tests.runs.serving import caller, ended, serving

pytestmark = pytest.mark.anyio

NAMES = ThreadNames("test", "X-Person", "X-Talk")


def request(admission: Admission = PUBLIC, **headers: str) -> Request:
    """A request that was admitted; its body never comes."""

    async def receive() -> Message:
        await asyncio.Event().wait()
        raise AssertionError

    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    made = Request({"type": "http", "method": "POST", "path": "/", "headers": raw}, receive)
    made.admission = admission
    return made


def said(items: Sequence[SpokenItem]) -> list[str]:
    """What was said, in short."""
    return [_short(item) for item in items]


def _short(item: SpokenItem) -> str:
    match item:
        case MessageStarted():
            return "["
        case MessagePiece(_, text):
            return text
        case MessageEnded():
            return "]"
        case PersonAsked():
            return f"asked {item.text}"
        case ReasoningStarted():
            return "("
        case ReasoningPiece(_, text):
            return text
        case ReasoningEnded():
            return ")"
        case ToolStarted(_, name):
            return f"call {name}"
        case ToolEnded(_, result, error_text):
            return f"{result} {error_text}"
        case SourceNamed(_, url, title):
            return f"source {url} {title}"
        case FilesSent(_, files):
            return f"files {' '.join(file.name for file in files)}"
        case ModelUsed(model, sent, received):
            return f"used {model} {sent} {received}"
        case Status(text, _):
            return f"status {text}"
        case NewEvent(_, event_type, _):
            return event_type
        case Finished():
            return "finished"
        case Failed(error):
            return f"failed {error}"


async def told(service: RunService, run: LiveRun) -> list[SpokenItem]:
    return [item async for item in spoken_items(request(), service, run)]


async def hear(steps: str, **limits: Any) -> list[str]:
    """All that is said of a run from its beginning."""
    async with serving(Scripted(), limits=RunLimits(**limits)) as service:
        return said(await told(service, await begin_turn(request(), service, NAMES, Turn(steps))))


@pytest.mark.parametrize("once", [False, True], ids=["in a thread", "without a thread"])
async def test_the_pipeline_reads_the_trace_that_the_message_names(once: bool) -> None:
    trace_context = TraceContext.parse("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "vendor=7")
    found: list[TraceContext | None] = []

    class Traced(Scripted):
        async def __call__(self, ctx: ThreadContext) -> None:
            found.append(ctx.trace_context)
            await super().__call__(ctx)

    async with serving(Traced()) as service:
        for turn in (Turn("send One", once=once, trace_context=trace_context), Turn("send Two", once=once)):
            await answer_of(request(), await begin_turn(request(), service, NAMES, turn))
    assert found == [trace_context, None]


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ("send One; send Two", "[ One ] [ Two ] finished"),
        ("stream Hel; stream lo", "[ Hel lo ] finished"),
        ("stream Hel; send Hello", "[ Hel lo ] finished"),
        ("stream Hel; send Other", "[ Hel ] [ Other ] finished"),
        ("status Now; stream Hel; status Then; stream lo", "status-Now [ Hel status-Then lo ] finished"),
        ("event a; stream Hel; event b", "[ Hel ] rag.step rag.step finished"),
        ("buttons Choose", "[ Choose ] comm.assistant_message_with_buttons finished"),
        ("event a", "rag.step finished"),
        ("send ", "[ ] finished"),
        ("stream Hel; raise it", "[ Hel ] failed-Pipeline-error:-it"),
        ("send Hi; raise it", "[ Hi ] failed-Pipeline-error:-it"),
        ("think They; think ask; send Hi", "( They ask ) [ Hi ] finished"),
        ("think They; think ask", "( They ask ) finished"),
        ("think They; raise it", "( They ) failed-Pipeline-error:-it"),
        ("tool search; send Hi", "call-search search-None [ Hi ] finished"),
        ("stream Hel; tool search; stream lo", "[ Hel call-search search-None lo ] finished"),
        ("stream Hel; think Oh; stream lo", "[ Hel ( Oh ) lo ] finished"),
        ("think Oh; tool a; think Ah; source S; send Hi", "( Oh ) call-a a-None ( Ah ) source-None-S [ Hi ] finished"),
        ("use 7", "used-m-7-1 finished"),
        ("begin search; send Hi", "call-search [ Hi ] None-the-call-did-not-end finished"),
        ("begin search; raise it", "call-search None-the-call-did-not-end failed-Pipeline-error:-it"),
        ("own tool.call; own model.usage", "tool.call model.usage finished"),
        ('own tool.call {"id": "1", "name": "n", "arguments": {}, "result": 1}', "tool.call finished"),
        ('own answer.source {"url": null, "title": null}', "answer.source finished"),
        ('own answer.source {"url": "javascript:x", "title": null}', "answer.source finished"),
        ('own answer.source {"url": "http://x", "title": null}', "source-http://x-None finished"),
        ("own answer.source; own model.reasoning", "answer.source model.reasoning finished"),
        ("own message.files; send Hi", "[ Hi ] message.files finished"),
    ],
)
async def test_messages_are_told_one_after_another_and_events_once_they_are_stored(steps: str, expected: str) -> None:
    assert [item.replace(" ", "-") for item in await hear(steps)] == expected.split()


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ("file One; send Two", "[ One files-a.txt ] [ Two ] finished"),
        ("stream On; file One", "[ On e files-a.txt ] finished"),
        ("think Oh; file ", "( Oh ) files-a.txt [ ] finished"),
    ],
)
async def test_the_files_of_a_message_are_told_once(steps: str, expected: str) -> None:
    async with serving(Scripted()) as service:
        service.use_files(FilesInMemory((), "ann"))  # type: ignore[arg-type] # it has what a run needs
        run = await begin_turn(request(), service, NAMES, Turn(steps, user="ann"))
        assert [item.replace(" ", "-") for item in said(await told(service, run))] == expected.split()
        items = [item async for item in spoken_run(request(), service, run.run_id)]
        again = said([item for item in items if not isinstance(item, PiecesMissed)])
        stored = said(stored_items((await run.answer).events))
    assert [item.replace(" ", "-") for item in again] == expected.split()
    assert stored.count("files a.txt") == 1


def test_stored_files_come_after_their_message_wherever_their_event_is() -> None:
    message_id = uuid7()
    facts = {"file_id": "f", "name": "a.txt", "type": "text/plain", "size": 1}
    files = {"message_id": str(message_id), "files": [facts]}
    sent = NewEvent(uuid7(), "message.files", json.dumps(files).encode())
    message = NewEvent(message_id, "comm.assistant_message", b'{"role": "assistant", "content": "One"}')
    for events in ([sent, message], [message, sent]):
        assert said(stored_items(events)) == ["[", "One", "]", "files a.txt"]
    assert stored_items([sent]) == []  # the message is not there


async def test_what_a_reader_missed_of_a_message_comes_with_the_stored_one(bot: Scripted) -> None:
    pieces = [f"{number}," for number in range(MAX_ITEMS + 50)]
    steps = "; ".join(["stream first ", "hold door", *(f"stream {piece}" for piece in pieces)])
    async with serving(bot) as service:
        run = await begin_turn(request(), service, NAMES, Turn(steps))
        items = spoken_items(request(), service, run)
        begun = [await anext(items), await anext(items)]
        bot.opened["door"].set()
        await ended(service)
        rest = [item async for item in items]
    whole = [item.text for item in (*begun, *rest) if isinstance(item, MessagePiece)]
    assert whole == ["first ", "".join(pieces)]
    assert said([begun[0], rest[-2], rest[-1]]) == ["[", "]", "finished"]


async def test_a_run_that_is_named_is_told_from_its_beginning_and_says_when_pieces_are_gone(bot: Scripted) -> None:
    async with serving(bot) as service:
        run = await begin_turn(request(), service, NAMES, Turn("stream a; stream b", user="ann"))
        await run.answer
        told = [item async for item in spoken_run(request(), service, run.run_id)]
        assert said([item for item in told if not isinstance(item, PiecesMissed)])[:4] == ["[", "a", "b", "]"]
        assert PiecesMissed() not in told
        many = "; ".join(f"stream {number}" for number in range(MAX_ITEMS + 10))
        run = await begin_turn(request(), service, NAMES, Turn(many, user="ann"))
        await run.answer
        told = [item async for item in spoken_run(request(), service, run.run_id)]
        assert told.count(PiecesMissed()) == 1
        with pytest.raises(RunNotFound):
            await anext(spoken_run(request(caller("bob", contact_id="bob")), service, run.run_id))


async def test_a_background_run_of_a_turn_has_the_contact_and_the_thread_that_the_caller_knows(bot: Scripted) -> None:
    async with serving(bot) as service:
        thread = await service.create_thread("ann", PUBLIC)
        turn = Turn("hold door; see", user="somebody")
        selectors = (ById(thread.thread_id),)
        run = await begin_turn(
            request(), service, NAMES, turn, background=True, selectors=selectors, contact=thread.contact_id
        )
        assert (run.background, run.thread_id, run.inbound.contact_id) == (True, thread.thread_id, "ann")
        bot.opened["door"].set()
        await run.answer


async def test_messages_that_were_never_heard_are_told_from_what_is_stored(bot: Scripted) -> None:
    async with serving(bot) as service:
        run = await begin_turn(request(), service, NAMES, Turn("stream Hel; send Other; stream More"), watched=False)
        assert one_text(await answer_of(request(), run)) == "Hel\n\nOther\n\nMore"
        assert said(await told(service, run)) == ["[", "Hel", "]", "[", "Other", "]", "[", "More", "]", "finished"]


async def test_what_an_agent_did_is_told_from_what_is_stored(bot: Scripted) -> None:
    async with serving(bot) as service:
        turn = Turn("think Oh; tool search; source S; use 7; send Hi")
        run = await begin_turn(request(), service, NAMES, turn, watched=False)
        result = await answer_of(request(), run)
        spoken = ["(", "Oh", ")", "call search", "search None", "source None S", "used m 7 1"]
        assert said(agent_items(result)) == spoken
        assert said(await told(service, run)) == [*spoken, "[", "Hi", "]", "finished"]


async def test_what_a_reader_missed_of_an_agent_comes_with_what_is_stored(bot: Scripted) -> None:
    many = "; ".join(f"status {number}" for number in range(MAX_ITEMS + 50))
    steps = f"think Oh; hold door; think  no; tool first; begin second; {many}; end second; tool third; send Hi"
    async with serving(bot) as service:
        run = await begin_turn(request(), service, NAMES, Turn(steps))
        items = spoken_items(request(), service, run)
        begun = [await anext(items), await anext(items)]
        bot.opened["door"].set()
        await ended(service)
        rest = [item async for item in items if not isinstance(item, Status)]
    assert said([*begun, *rest]) == [
        "(", "Oh", "call second", "second None", "call third", "third None", " no", ")", "call first", "first None",
        "[", "Hi", "]", "finished",
    ]  # fmt: skip


async def test_a_large_result_does_not_keep_clients_from_the_text_after_it() -> None:
    spoken = await hear("big S; stream Hel; stream lo")
    assert spoken[:6] == ["call big", "source None S", "[", "Hel", "lo", f"{'x' * 300_000} None"]
    assert spoken[6:] == ["]", "finished"]


async def test_one_text_sets_messages_apart_whole_or_in_pieces(bot: Scripted) -> None:
    async with serving(bot) as service:
        run = await begin_turn(request(), service, NAMES, Turn("stream O; stream ne; event x; send ; send Two"))
        *pieces, last = [item async for item in as_one_text(spoken_items(request(), service, run))]
        assert pieces == ["O", "ne", "\n\n", "Two"]
        assert isinstance(last, Finished)
        assert one_text(last.result) == "One\n\nTwo"


async def test_a_message_outside_of_a_conversation_is_in_no_thread(bot: Scripted) -> None:
    async with serving(bot) as service:
        run = await begin_turn(request(), service, NAMES, Turn("stream Hi", "c", "ann", once=True))
        assert said(await told(service, run)) == ["[", "Hi", "]", "finished"]
        assert (await service.store.threads("ann", 10, None)).threads == []


def test_the_answer_of_an_app_s_own_handler_to_an_error_is_reworded_with_its_text_and_its_status() -> None:
    answer = reworded(lambda refusal: {"error": refusal.text}, JSONResponse({"detail": "a text of its own"}, 520))
    assert answer.status == 520
    assert orjson.loads(answer.body or b"") == {"error": "a text of its own"}


async def test_one_key_is_one_message_and_both_callers_hear_it(bot: Scripted) -> None:
    async with serving(bot) as service:
        keyed = request(idempotency_key="k", x_talk="c")
        runs = [await begin_turn(keyed, service, NAMES, Turn("stream Hi")) for _ in range(2)]
        assert [said(await told(service, run)) for run in runs] == [["[", "Hi", "]", "finished"]] * 2
        assert bot.texts == ["stream Hi"]


async def test_a_turn_that_no_thread_takes_says_why(bot: Scripted) -> None:
    async with serving(bot, limits=RunLimits(reject_busy=True, max_runs=2)) as service:
        held = await begin_turn(request(x_talk="c"), service, NAMES, Turn("hold door"))
        with pytest.raises(ThreadBusy):
            await begin_turn(request(x_talk="c"), service, NAMES, Turn("hi"))
        await begin_turn(request(x_talk="d"), service, NAMES, Turn("hold door"))
        with pytest.raises(TooManyRuns):
            await begin_turn(request(x_talk="e"), service, NAMES, Turn("hi"))
        bot.opened["door"].set()
        assert one_text(await answer_of(request(), held)) == ""


def test_a_person_is_the_identity_s_else_the_header_s_else_the_protocol_s_else_the_conversation_s() -> None:
    turn = Turn("hi", thread="talk", user="user")
    assert NAMES.contact(request(caller(contact_id="ann"), x_person="header"), turn) == "ann"
    assert NAMES.contact(request(caller(contact_id=""), x_person="header"), turn) == ""
    assert NAMES.contact(request(x_person="header"), turn) == "header"
    assert NAMES.contact(request(), turn) == "user"
    assert NAMES.contact(request(), Turn("hi", thread="talk")) == "talk"
    nobody = [NAMES.contact(request(), Turn("hi")) for _ in range(2)]
    assert nobody[0] != nobody[1]
    assert len(NAMES.contact(request(), Turn("hi", thread="ü" * 10_000)).encode()) < 100


def test_a_thread_is_the_header_s_else_the_protocol_s() -> None:
    assert NAMES.thread(request(x_talk="header"), Turn("hi", thread="talk")) == "header"
    assert NAMES.thread(request(), Turn("hi", thread="talk")) == "talk"
    assert NAMES.thread(request(), Turn("hi")) is None
    assert NAMES.selectors(request(), Turn("hi"), "ann") is None


@pytest.mark.parametrize("header", [b"x-person", b"x-talk"])
def test_two_headers_that_name_a_person_or_a_thread_are_refused(header: bytes) -> None:
    asked = request(caller())
    asked.scope["headers"] += [(header, b"ann"), (header, b"bea")]
    with pytest.raises(HTTPError, match="Send one X-") as refused:
        NAMES.selectors(asked, Turn("hi"), NAMES.contact(asked, Turn("hi")))
    assert refused.value.status == 400


def test_a_name_is_another_thread_for_every_caller_person_and_protocol() -> None:
    turn = Turn("hi", thread="talk")
    found = [
        NAMES.selectors(request(), turn, "ann"),
        NAMES.selectors(request(), turn, "bea"),
        NAMES.selectors(request(caller("one")), turn, "ann"),
        NAMES.selectors(request(caller("two")), turn, "ann"),
        NAMES.selectors(request(caller("one", "other")), turn, "ann"),
        ThreadNames("other").selectors(request(), turn, "ann"),
        NAMES.selectors(request(), Turn("hi", thread="talk "), "ann"),
        NAMES.selectors(request(), Turn("hi", thread="x" * 100_000), "ann"),
        # Two names that would be one if they were merely put together.
        NAMES.selectors(request(), Turn("hi", thread="bc"), "a"),
        NAMES.selectors(request(), Turn("hi", thread="c"), "ab"),
    ]
    assert len({repr(selectors) for selectors in found}) == len(found)
    assert max(len(repr(selectors)) for selectors in found) < 300
    assert NAMES.selectors(request(), turn, "ann") == found[0]


# Refusals.


def form(refused: Refusal) -> Any:
    return [refused.status_code, refused.text, refused.field]


FAULTS: list[dict[str, Any]] = [
    {"type": "missing", "loc": ["body", "a", 0, "b"], "msg": "Field required", "input": None},
    {"type": "json_invalid", "loc": ["body"], "msg": "No JSON", "input": None},
]
NO_JSON: list[dict[str, Any]] = [
    {"type": "json_invalid", "loc": ["body", 53], "msg": "JSON decode error", "input": {}},
]


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (HTTPError(415, "JSON, please"), [415, "JSON, please", None]),
        (ValidationError(FAULTS), [422, "a.0.b: Field required; No JSON", "a.0.b"]),
        (ValidationError(NO_JSON), [422, "JSON decode error at character 53", None]),
        (ServerDraining(), [503, "The server is shutting down; try again", None]),
        (StoreUnavailable("host=db.internal"), [503, "The store is not available; try again later", None]),
    ],
)
def test_a_refusal_is_told_in_the_protocol_s_form(error: HTTPError, expected: list[Any]) -> None:
    answer = reworded(form, error_answer(request(), error))
    assert answer.status == expected[0]
    assert orjson.loads(answer.body or b"") == expected


def test_a_refusal_keeps_its_headers_but_for_its_length() -> None:
    answer = reworded(form, error_answer(request(), ServerDraining()))
    headers = dict(answer.raw_headers)
    assert len(headers) == len(answer.raw_headers)
    assert headers[b"retry-after"] == b"5"
    assert headers[b"connection"] == b"close"
    assert answer.names_connection
    assert int(headers[b"content-length"]) == len(answer.body or b"")


def test_a_failed_run_is_told_with_the_status_it_has_elsewhere_and_a_fault_of_ours_without_its_text() -> None:
    assert failure(request(), PipelineFailed(RuntimeError("no"))) == (500, "Pipeline error: no")
    assert failure(request(), RunBroken()) == (500, "Internal Server Error")
    assert failure(request(), RuntimeError("password")) == (500, "Internal Server Error")


def test_a_run_that_fails_with_a_store_s_subclass_of_an_error_is_told_with_the_error_s_status() -> None:
    class SlowStore(StoreUnavailable):
        pass

    assert failure(request(), SlowStore("host=db.internal")) == (503, "The store is not available; try again later")


async def test_a_body_that_does_not_come_before_the_server_ends_is_a_refusal(bot: Scripted) -> None:
    async with serving(bot) as service:
        late = request(content_type="application/json", content_length="10")
        reading = asyncio.create_task(read_json(late, service))
        await asyncio.sleep(0)
        service.draining = True
        reading.cancel()
        with pytest.raises(ServerDraining):
            await reading


def test_an_event_is_one_line_to_who_splits_text_as_python_does() -> None:
    event = data_event({"text": "a\n\u2028b\u2029\u0085é"})
    assert event.decode().splitlines() == ['data: {"text":"a\\n\\u2028b\\u2029\\u0085é"}', ""]


@pytest.fixture
def bot() -> Scripted:
    """The bot of a test's service."""
    return Scripted()
