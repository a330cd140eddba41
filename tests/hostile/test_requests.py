"""Hostile requests to real servers, in a small number; `python -m tests.hostile.requests` sends as many as you like."""

import asyncio
from pathlib import Path

import pytest

from tests.hostile.api_requests import API, KEY, Attack, routes_of
from tests.hostile.requests import Answers, Report, assault, complaints, complaints_of_app, judge
from tests.hostile.servers import OURS, serve
from tests.serving import Served

COUNT = 500


@pytest.mark.parametrize(
    ("http", "store"), [("h11", "memory"), ("httptools", "sqlite"), (OURS, "memory"), (OURS, "sqlite")]
)
def test_a_server_answers_or_closes_and_works_on(http: str, store: str, tmp_path: Path) -> None:
    url = "memory:" if store == "memory" else f"sqlite:///{tmp_path / 'hostile.db'}"
    with serve(http, url) as served:
        report = asyncio.run(assault(served, http, COUNT, seed=12))
    assert report.wrong == []
    assert report.sent == COUNT
    assert report.controls == 2
    assert report.statuses[200] > COUNT / 20  # a server that refuses everything would be right, too
    assert report.statuses[422] > COUNT / 50


def test_a_server_that_fails_is_reported(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text(
        "from jimsapi import JimsApp\nasync def broken(ctx):\n    raise RuntimeError('no')\napp = JimsApp(broken)\n"
    )
    with Served("--app", "broken:app", "--api-key", KEY, folder=tmp_path) as served:
        with served.client(headers={"authorization": f"Bearer {KEY}"}) as client:
            assert client.post("/api/v1/chat", json={"contact_id": "a", "message": "b"}).status_code == 500
        report = asyncio.run(_with_known_thread(served))
    assert any("control 0 got [500]" in line for line in report.wrong)
    assert any("answered [500]" in line for line in report.wrong)


async def _with_known_thread(served: Served) -> Report:
    from tests.hostile import requests

    with served.client() as client:
        routes = routes_of(client.get("/openapi.json").json())
    report = Report("jimsapi")
    await requests.send_all(served.port, report, iter(range(300)), 12, routes, ["x"])
    return report


def test_answers_are_read_one_after_another() -> None:
    text = (
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nab"
        b"HTTP/1.1 404 Not Found\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n"
        b"HTTP/1.1 204 No Content\r\nx: y\r\n\r\n"
    )
    answers = Answers(text)
    assert (answers.statuses, answers.whole, answers.odd_field) == ([200, 404, 204], True, b"")
    assert not Answers(text[:60]).whole
    assert Answers(b"HTTP/1.1 307 x\r\nlocation: /a\r\nx-injected: 1\r\n\r\n").odd_field == b"x-injected: 1"


def test_a_connection_may_close_after_100_continue_but_not_after_bytes_that_are_no_http() -> None:
    report = Report(OURS)
    assert judge(Attack(API, b""), b"HTTP/1.1 100 Continue\r\n\r\n", True, report) == ""
    assert report.closed == 1
    assert "no HTTP came back" in judge(Attack(API, b""), b"HTTP/9 100\r\n\r\n", True, report)


def test_errors_are_found_in_a_log() -> None:
    log = "INFO: ok\n2026-01-01T00:00:00Z ERROR jimsapi it failed\nTraceback (most recent call last):\nValueError: no\n"
    assert sum(complaints(log).values()) == 2
    assert not complaints("INFO: 127.0.0.1 GET /Error HTTP/1.1 200\nWARNING: Invalid HTTP request received.\n")


def test_a_refusal_that_websockets_cannot_encode_is_no_complaint_of_the_app_and_one_of_the_app_is() -> None:
    failure = "body = text.encode()\n           ^^^\nUnicodeEncodeError: 'utf-8' codec can't encode character\n"
    of_websockets = f'  File "/lib/websockets/server.py", line 499, in reject\n    {failure}INFO: on\n'
    of_app = f'  File "/jimsapi/asgi/response.py", line 499, in reject\n    {failure}'
    assert not complaints_of_app(of_websockets)
    assert sum(complaints_of_app(of_websockets + of_app + of_websockets).values()) == 1
