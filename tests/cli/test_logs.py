"""Log lines: one an entry, whatever somebody put into it, and no entry ends the log."""

import json
import logging
from collections.abc import Iterator

import pytest

from jimsapi.cli.logs import LogWriter


@pytest.fixture(params=[False, True], ids=["text", "json"])
def writer(request: pytest.FixtureRequest) -> Iterator[LogWriter]:
    made = LogWriter(as_json=request.param)
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
    writer = LogWriter(as_json=True)
    writer.handle(logging.LogRecord("x", logging.INFO, "", 0, "hi %s", ("there",), None))
    [line] = written(writer, capsys)
    assert json.loads(line)["message"] == "hi there"


def test_other_handlers_get_the_record_as_it_was(writer: LogWriter) -> None:
    record = logging.LogRecord("x", logging.INFO, "", 0, "hi %s", ("there",), None)
    writer.handle(record)
    assert (record.msg, record.args) == ("hi %s", ("there",))
