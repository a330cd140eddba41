"""What is asked for again, how often, and what is taken for the last word."""

import pickle
import ssl
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from uuid import UUID

import httpx
import pytest

from jimsapi.client import ApiError, Conflict, InvalidRequest, RunFailed, TimedOut, TooManyRequests, Unreachable
from jimsapi.client.call import LONGEST_PAUSE, LONGEST_PAUSE_AFTER_CUT, Call
from jimsapi.client.errors import Unavailable, answered_error
from jimsapi.client.request import Request, message_request

RUN = UUID("0192b5f2-2c03-7b91-9c6c-9a1234567890")
OF_A_RUN = {"x-run-id": str(RUN)}
REQUEST = Request("GET", "/", {}, None, 1.0)


def call(attempts: int = 10) -> Call:
    return Call(REQUEST, attempts)


def answered(asked: Call, status: int, headers: dict[str, str] | None = None, detail: str = "told") -> bool:
    return asked.on_response(status, httpx.Headers(headers), f'{{"detail":"{detail}"}}'.encode())


@pytest.mark.parametrize("status", [200, 202, 204])
def test_what_was_asked_for_is_the_last_word(status: int) -> None:
    assert answered(call(), status)


@pytest.mark.parametrize(
    ("status", "headers"),
    [(502, {}), (503, {}), (503, OF_A_RUN), (504, {}), (429, {"retry-after": "1"})],
)
def test_a_refusal_that_passes_is_asked_again(status: int, headers: dict[str, str]) -> None:
    asked = call()
    assert not answered(asked, status, headers)
    assert asked.pause > 0
    assert answered(asked, 200)


@pytest.mark.parametrize(
    ("status", "headers", "kind"),
    [
        (302, {}, ApiError),
        (409, {"retry-after": "1"}, Conflict),
        (422, {}, InvalidRequest),
        (429, {}, TooManyRequests),
        (500, OF_A_RUN, RunFailed),
        (504, OF_A_RUN, TimedOut),
    ],
)
def test_what_the_server_says_is_final_is_raised_at_once(
    status: int, headers: dict[str, str], kind: type[ApiError]
) -> None:
    with pytest.raises(kind, match=f"^{status}: told$") as raised:
        answered(call(), status, headers)
    assert (type(raised.value), raised.value.status, raised.value.detail) == (kind, status, "told")
    assert raised.value.run_id == (RUN if headers is OF_A_RUN else None)


def test_a_server_that_stays_away_is_asked_so_often_and_no_more() -> None:
    asked = call(3)
    for _ in range(3):
        assert not answered(asked, 503)
    with pytest.raises(Unavailable):
        answered(asked, 503)
    broken = call(3)
    for _ in range(3):
        broken.on_connection_error(httpx.ConnectError("refused"))
    with pytest.raises(Unreachable, match=r"\(refused\)"):
        broken.on_connection_error(httpx.ConnectError("refused"))


def test_a_cut_connection_counts_a_fifth_and_pauses_stay_short() -> None:
    asked = call(3)
    for _ in range(15):
        asked.on_connection_error(httpx.RemoteProtocolError("cut"))
        assert 0 < asked.pause <= LONGEST_PAUSE_AFTER_CUT
    with pytest.raises(Unreachable):
        asked.on_connection_error(httpx.ReadError(""))


def test_pauses_grow_up_to_a_limit_and_differ() -> None:
    asked, other = call(), call()
    pauses: list[float] = []
    others: list[float] = []
    for _ in range(10):
        for each, found in ((asked, pauses), (other, others)):
            answered(each, 503)
            found.append(each.pause)
    assert all(0.025 * 2**place <= pause or pause >= LONGEST_PAUSE / 2 for place, pause in enumerate(pauses))
    assert max(pauses) <= LONGEST_PAUSE
    assert pauses != others


@pytest.mark.parametrize("given", ["7", "date"])
def test_who_is_told_to_wait_waits_so_long(given: str) -> None:
    asked = call()
    if given == "date":
        given = format_datetime(datetime.now(UTC) + timedelta(seconds=8), usegmt=True)
    answered(asked, 429, {"retry-after": given})
    assert 6 <= asked.pause <= 10


def test_who_would_have_to_wait_long_is_told_at_once() -> None:
    with pytest.raises(TooManyRequests) as raised:
        answered(call(), 429, {"retry-after": "3600"})
    assert raised.value.retry_after == 3600


def test_a_certificate_that_is_not_trusted_is_told_at_once() -> None:
    error = httpx.ConnectError("certificate verify failed")
    error.__cause__ = ssl.SSLCertVerificationError("certificate verify failed")
    with pytest.raises(Unreachable, match="certificate"):
        call().on_connection_error(error)


@pytest.mark.parametrize("error", [httpx.DecodingError("incorrect header"), httpx.TooManyRedirects("too many")])
def test_an_answer_that_will_be_no_better_is_told_at_once(error: httpx.RequestError) -> None:
    with pytest.raises(Unreachable, match=str(error)):
        call().on_connection_error(error)


@pytest.mark.parametrize("given", ["Fri, 31 Dec 1999 23:59:59 +99999999999999999999", "soon", ""])
def test_a_time_to_wait_that_cannot_be_read_is_none(given: str) -> None:
    assert answered_error(429, {"retry-after": given}, b"").retry_after is None


def test_where_a_redirect_leads_is_told_and_not_followed() -> None:
    error = answered_error(301, {"location": "https://example.org/api/v1/chat"}, b"")
    assert str(error) == "301: Moved Permanently: the API is at https://example.org/api/v1/chat"


def test_errors_reach_other_processes() -> None:
    for error in (answered_error(404, {"x-run-id": str(RUN), "retry-after": "1"}, b"{}"), Unreachable("gone")):
        copy = pickle.loads(pickle.dumps(error))
        assert (type(copy), str(copy), vars(copy)) == (type(error), str(error), vars(error))


def test_what_a_proxy_says_in_html_is_told_by_the_status_alone() -> None:
    error = answered_error(502, {}, b"<html>nginx</html>")
    assert str(error) == "502: Bad Gateway"
    assert str(answered_error(599, {}, b"")) == "599: Unknown status"


def test_faults_of_a_body_are_told_in_one_line() -> None:
    body = b'{"detail":[{"loc":["body","message"],"msg":"Field required"},{"msg":"and more"}]}'
    assert str(answered_error(422, {}, body)) == "422: body.message: Field required; and more"


def test_the_run_that_keeps_a_thread_busy_is_named() -> None:
    body = f'{{"detail":"busy","run_id":"{RUN}"}}'.encode()
    assert answered_error(409, {"x-run-id": "1", "retry-after": "1"}, body).run_id == RUN


def test_each_message_has_a_key_of_its_own_unless_it_was_given_one() -> None:
    made = {message_request("/", "hi", {}, 1).headers["idempotency-key"] for _ in range(2)}
    assert len(made) == 2
    assert message_request("/", "hi", {"idempotency_key": "mine"}, 1).headers["idempotency-key"] == "mine"
    for wrong in ("a\nb", "é", "x" * 256):
        with pytest.raises(ValueError, match="idempotency key"):
            message_request("/", "hi", {"idempotency_key": wrong}, 1)


def test_what_is_left_out_is_not_sent() -> None:
    request = message_request("/", "hi", {"contact_id": "", "thread_id": RUN, "webhook_url": None}, 1)
    assert request.content == f'{{"contact_id":"","thread_id":"{RUN}","message":"hi"}}'.encode()
