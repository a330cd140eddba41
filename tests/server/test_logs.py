"""Log lines: one an entry, whatever somebody put into it, and no entry ends the log."""

import json
import logging
import re
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

import pytest

from jimsapi import Connection
from jimsapi.asgi.record import RequestRecord
from jimsapi.plugins.secrets import redact
from jimsapi.server.logs import LINES_AT_ONCE, LogWriter


@pytest.fixture(params=[False, True], ids=["text", "json"])
def writer(request: pytest.FixtureRequest) -> Iterator[LogWriter]:
    made = LogWriter(as_json=request.param, redact=redact)
    logger = logging.getLogger("tests.logs")
    logger.addHandler(made)
    logger.propagate = False
    yield made
    logger.removeHandler(made)
    logger.propagate = True


def written(writer: LogWriter, capsys: pytest.CaptureFixture[str]) -> list[str]:
    writer.flush()
    return capsys.readouterr().err.splitlines()


FORGED = "2026-01-01T00:00:00.000Z INFO jimsapi.access request status=200"


@pytest.mark.parametrize("separator", ["\n", "\r\n", "\x85", "\u2028", "\x1b[2K\r"])
def test_no_message_and_no_exception_can_forge_an_entry(
    writer: LogWriter, capsys: pytest.CaptureFixture[str], separator: str
) -> None:
    try:
        raise ValueError(f"boom{separator}{FORGED}")
    except ValueError as error:
        logging.getLogger("tests.logs").error("said %s", f"hi{separator}{FORGED}", exc_info=error)
    lines = written(writer, capsys)
    assert not [line for line in lines if line.startswith("2026-01-01")]
    assert not [line for line in lines if "\x1b" in line]


def test_a_record_that_cannot_be_encoded_or_formatted_does_not_end_the_log(
    writer: LogWriter, capsys: pytest.CaptureFixture[str]
) -> None:
    # Handed over directly: pytest's own handler would raise for the second.
    for message, arguments in (("lone surrogate: %s", ("\ud800",)), ("%d things", ("no number",)), ("after", None)):
        writer.handle(logging.LogRecord("x", logging.ERROR, "", 0, message, arguments, None))
    lines = written(writer, capsys)
    assert len(lines) == 3
    assert "lone surrogate" in lines[0]
    assert "no number" in lines[1]
    assert "after" in lines[2]


def test_json_lines_are_json(capsys: pytest.CaptureFixture[str]) -> None:
    writer = LogWriter(as_json=True, redact=redact)
    writer.handle(logging.LogRecord("x", logging.INFO, "", 0, "hi %s", ("there",), None))
    [line] = written(writer, capsys)
    assert json.loads(line)["message"] == "hi there"


def test_other_handlers_get_the_record_as_it_was(writer: LogWriter) -> None:
    record = logging.LogRecord("x", logging.INFO, "", 0, "hi %s", ("there",), None)
    writer.handle(record)
    assert (record.msg, record.args) == ("hi %s", ("there",))


def answered(request_id: str, connection: Connection) -> RequestRecord:
    return RequestRecord("GET", "/things/{id}", "/things/7", 200, 0.0123456, request_id, False, connection.noted)


def let_in_by(provider: str) -> Connection:
    connection = Connection({"type": "http"})
    connection.note_all(MappingProxyType({"provider": provider, "distribution": "its-distribution", "version": "1.0"}))
    return connection


def test_a_request_s_line_says_what_was_asked_and_how_it_ended(
    writer: LogWriter, capsys: pytest.CaptureFixture[str]
) -> None:
    writer.on_request(answered("abc-1", let_in_by("key")))
    [line] = written(writer, capsys)
    if line.startswith("{"):
        said = json.loads(line)
        del said["time"]
    else:
        _, level, logger, message, *fields = line.split(" ")
        said = {"level": level, "logger": logger, "message": message, **dict(field.split("=") for field in fields)}
        said["status"], said["duration"] = int(said["status"]), float(said["duration"])
    assert said == {
        "level": "INFO",
        "logger": "jimsapi.access",
        "message": "request",
        "method": "GET",
        "route": "/things/{id}",
        "status": 200,
        "duration": 0.012346,
        "request_id": "abc-1",
        "provider": "key",
        "distribution": "its-distribution",
        "version": "1.0",
    }


def test_each_request_s_line_has_the_notes_of_its_own_request(
    writer: LogWriter, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = let_in_by("first"), let_in_by("second")
    noting = let_in_by("first")
    noting.note_all(first.noted)
    noting.note("more", "told")
    bare = Connection({"type": "http"})
    for number, connection in enumerate((first, second, first, noting, bare, first)):
        writer.on_request(answered(f"abc-{number}", connection))
    lines = written(writer, capsys)
    found = [("first" in line, "second" in line, "told" in line) for line in lines]
    assert found == [
        (True, False, False),
        (False, True, False),
        (True, False, False),
        (True, False, True),
        (False, False, False),
        (True, False, False),
    ]


@pytest.mark.parametrize("separator", ["\n", "\r\n", "\x85", "\u2028", "\x1b[2K\r"])
def test_no_note_can_forge_an_entry(writer: LogWriter, capsys: pytest.CaptureFixture[str], separator: str) -> None:
    connection = Connection({"type": "http"})
    connection.note(f"a{separator}{FORGED}", "b")
    connection.note("c", f"d{separator}{FORGED}")
    writer.on_request(answered("abc-1", connection))
    [line] = written(writer, capsys)
    assert not line.startswith("2026-01-01")
    assert "\x1b" not in line


class Mute:
    """What has no text."""

    def __str__(self) -> str:
        raise LookupError("sesame")


@pytest.mark.parametrize("fields", [{"odd": Mute()}, MappingProxyType({"odd": Mute()})])
def test_a_note_that_has_no_text_is_told_of_and_leaves_the_lines_of_other_requests_alone(
    writer: LogWriter, capsys: pytest.CaptureFixture[str], fields: Mapping[str, Any]
) -> None:
    odd, good = Connection({"type": "http"}), let_in_by("first")
    odd.note_all(fields)
    for connection in (good, odd, odd, good):
        writer.on_request(answered("abc-1", connection))
    lines = written(writer, capsys)
    assert ["first" in line for line in lines] == [True, False, False, True]
    assert ["could not be written: LookupError" in line for line in lines] == [False, True, True, False]
    assert "sesame" not in "".join(lines)


def test_lines_that_wait_by_the_thousand_are_all_written_in_order(
    writer: LogWriter, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(2 * LINES_AT_ONCE + 1):
        writer.on_request(answered(f"abc-{number}", let_in_by("key")))
    found = [re.findall(r"abc-(\d+)", line) for line in written(writer, capsys)]
    assert found == [[str(number)] for number in range(2 * LINES_AT_ONCE + 1)]
    assert written(writer, capsys) == []


def test_probes_have_no_line(writer: LogWriter, capsys: pytest.CaptureFixture[str]) -> None:
    writer.on_request(RequestRecord("GET", "/healthz", "/healthz", 200, 0.001, "", True, {}))
    assert written(writer, capsys) == []
