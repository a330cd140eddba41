"""What is made of a stream that comes in parts, told by hand."""

from uuid import UUID

import httpx
import pytest

from jimsapi.client import (
    ClientError,
    Conflict,
    Gap,
    Item,
    NotFound,
    Result,
    RunFailed,
    Started,
    Status,
    Unavailable,
    Unreachable,
)
from jimsapi.client.request import message_request
from jimsapi.client.watch import Watch

RUN = UUID("0192b5f2-2c03-7b91-9c6c-9a1234567890")
POST = message_request("/api/v1/chat/stream", "hi", {}, 1)
HEAD = httpx.Headers({"content-type": "text/event-stream; charset=utf-8", "x-run-id": str(RUN)})
ANONYMOUS = httpx.Headers({"content-type": "text/event-stream"})
CUT = httpx.RemoteProtocolError("cut")
STARTED = f'event: started\nid: 1\ndata: {{"run_id":"{RUN}","thread_id":"{RUN}","created_new_thread":true}}\n\n'
LOOKING = 'event: status\nid: 2\ndata: {"status":"Looking","type":"look"}\n\n'
FOUND = 'event: status\nid: 3\ndata: {"status":"Found","type":"look"}\n\n'
UNKNOWN = "event: newer\nid: 4\ndata: [1]\n\n"
RESULT = (
    f'event: result\nid: end\ndata: {{"thread_id":"{RUN}","created_new_thread":true,"assistant_messages":[],'
    '"events":[]}\n\n'
)
FAILED = 'event: error\nid: end\ndata: {"detail":"It broke"}\n\n'
PASSING = 'event: error\ndata: {"detail":"shutting down"}\n\n'
A_STARTED = Started(run_id=RUN, thread_id=RUN, created_new_thread=True, id="1")
A_STATUS = Status(status="Looking", type="look", id="2")
ANOTHER = Status(status="Found", type="look", id="3")
A_RESULT = Result(thread_id=RUN, created_new_thread=True, assistant_messages=[], events=[], run_id=RUN, id="end")


def feed(watch: Watch, *events: str) -> list[Item]:
    return list(watch.feed("".join(events).encode()))


def begin(*events: str) -> Watch:
    """A watch of a message whose first connection told these events and was cut."""
    watch = Watch(10, post=POST)
    assert watch.request() is POST
    assert watch.is_stream(200, HEAD)
    feed(watch, *events)
    watch.on_connection_error(CUT)
    return watch


def asks(watch: Watch) -> tuple[str, str, str | None]:
    request = watch.request()
    return request.method, request.path.removeprefix("/api/v1/"), request.headers.get("last-event-id")


def resume(watch: Watch, *events: str) -> list[Item]:
    watch.request()
    assert watch.is_stream(200, ANONYMOUS)
    return feed(watch, *events)


def test_before_the_run_is_known_the_same_message_is_sent_again() -> None:
    watch = Watch(10, post=POST)
    assert watch.request() is POST
    watch.on_connection_error(CUT)
    assert watch.pause > 0
    assert watch.request() is POST
    assert watch.is_stream(200, ANONYMOUS)
    watch.on_connection_error(CUT)
    assert watch.request() is POST


def test_once_the_head_of_the_answer_names_the_run_it_goes_on_there() -> None:
    assert asks(begin()) == ("GET", f"runs/{RUN}/stream", None)


def test_it_goes_on_after_the_last_whole_event() -> None:
    watch = begin(STARTED, LOOKING, FOUND[:35])
    assert asks(watch) == ("GET", f"runs/{RUN}/stream", "2")
    assert resume(watch, FOUND, RESULT) == [ANOTHER, A_RESULT]
    assert watch.finished


def test_what_came_before_comes_no_more() -> None:
    assert resume(begin(STARTED, LOOKING), STARTED, LOOKING, FOUND, RESULT) == [ANOTHER, A_RESULT]


def test_nothing_comes_behind_the_end_and_breaking_there_is_nothing() -> None:
    watch = begin(STARTED)
    assert resume(watch, RESULT, RESULT, LOOKING) == [A_RESULT]
    watch.on_connection_error(CUT)
    watch.on_stream_end()
    assert watch.finished


def test_what_a_newer_server_tells_is_passed_over_and_not_asked_for_again() -> None:
    watch = begin(STARTED, LOOKING, FOUND, UNKNOWN)
    assert asks(watch)[2] == "4"


def test_a_gap_of_an_uncounted_run_is_told_once() -> None:
    gap = 'event: gap\nid: 2\ndata: {"missed":null}\n\n'
    watch = begin(STARTED, LOOKING)
    assert resume(watch, gap) == [Gap(missed=None, id="2")]
    watch.on_connection_error(CUT)
    assert resume(watch, gap, RESULT) == [A_RESULT]


def test_a_stream_that_ends_early_but_whole_goes_on_too() -> None:
    watch = begin(STARTED)
    resume(watch, LOOKING)
    watch.on_stream_end()
    assert asks(watch)[2] == "2"


def test_something_new_lets_it_try_as_often_again() -> None:
    watch = Watch(1, run_id=RUN)
    for event in (STARTED, LOOKING, FOUND):
        for _ in range(5):
            watch.on_connection_error(CUT)
        assert resume(watch, event)
    for _ in range(5):
        watch.on_connection_error(CUT)
    with pytest.raises(Unreachable) as raised:
        watch.on_connection_error(CUT)
    assert raised.value.run_id == RUN


def test_what_has_no_place_in_the_stream_is_told_and_is_nothing_new() -> None:
    nowhere = LOOKING.replace("id: 2\n", "")
    watch = Watch(1, run_id=RUN)
    for _ in range(5):
        assert [item.id for item in resume(watch, nowhere)] == [""]
        watch.on_connection_error(CUT)
    with pytest.raises(Unreachable):
        watch.on_connection_error(CUT)


def test_a_place_that_no_stream_of_ours_has_is_passed_over() -> None:
    watch = begin(STARTED)
    assert resume(watch, LOOKING.replace("id: 2", f"id: {'9' * 5000}"), LOOKING) == [A_STATUS]


def test_a_failed_run_that_is_shown_as_a_stream_is_not_watched_again() -> None:
    watch = begin(STARTED)
    resume(watch, FAILED)
    watch.on_stream_end()
    assert asks(watch)[1] == f"runs/{RUN}"
    assert not watch.is_stream(200, HEAD)
    with pytest.raises(ClientError, match="check the URL"):
        watch.on_response(200, HEAD, FAILED.encode())


def test_an_error_is_raised_with_the_status_that_the_run_has() -> None:
    watch = begin(STARTED)
    assert resume(watch, FAILED) == []
    watch.on_stream_end()
    assert not watch.finished
    assert asks(watch) == ("GET", f"runs/{RUN}", None)
    shown = f'{{"run_id":"{RUN}","thread_id":"{RUN}","status":"cancelled","error":{{"detail":"x","status":409}}}}'
    with pytest.raises(Conflict, match=r"^409: It broke$") as raised:
        watch.on_response(200, httpx.Headers(), shown.encode())
    assert raised.value.run_id == RUN


def test_an_error_whose_run_cannot_be_asked_for_is_raised_all_the_same() -> None:
    watch = begin(STARTED)
    resume(watch, FAILED)
    watch.on_connection_error(CUT)
    assert asks(watch)[1] == f"runs/{RUN}"
    watch.on_response(503, httpx.Headers(), b"{}")
    with pytest.raises(RunFailed, match="It broke"):
        watch.on_response(404, httpx.Headers(), b"{}")


def test_an_error_that_ends_the_stream_alone_is_raised_only_if_the_run_cannot_be_watched_any_more() -> None:
    watch = begin(STARTED, PASSING)
    assert asks(watch) == ("GET", f"runs/{RUN}/stream", "1")
    assert resume(watch, PASSING) == []
    watch.on_stream_end()
    for _ in range(8):
        watch.on_connection_error(httpx.ConnectError("refused"))
    with pytest.raises(Unavailable, match="503: shutting down"):
        watch.on_connection_error(httpx.ConnectError("refused"))


def test_what_the_server_said_before_it_came_back_is_no_reason_any_more() -> None:
    watch = begin(STARTED, PASSING)
    assert resume(watch, LOOKING) == [A_STATUS]
    for _ in range(10):
        watch.on_connection_error(httpx.ConnectError("refused"))
    with pytest.raises(Unreachable):
        watch.on_connection_error(httpx.ConnectError("refused"))


def test_a_refusal_of_the_message_or_of_the_rest_is_raised() -> None:
    watch = Watch(10, post=POST)
    watch.request()
    with pytest.raises(NotFound, match="no such"):
        watch.on_response(404, httpx.Headers(), b'{"detail":"no such thread"}')
    watch = begin(STARTED)
    watch.request()
    watch.on_response(503, httpx.Headers({"retry-after": "5"}), b"{}")
    assert watch.pause >= 5
    with pytest.raises(NotFound) as raised:
        watch.on_response(404, httpx.Headers(), b"{}")
    assert raised.value.run_id == RUN


def test_an_id_that_is_the_last_has_nothing_behind_it() -> None:
    watch = Watch(10, run_id=RUN, after="end")
    assert asks(watch)[2] == "end"
    assert not watch.is_stream(204, httpx.Headers())
    watch.on_response(204, httpx.Headers(), b"")
    assert watch.finished
