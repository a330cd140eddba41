"""The log lines of a store that fails."""

import logging
import sqlite3
from pathlib import Path

import pytest

from jimsapi import JimsApp
from jimsapi.runs import outage
from jimsapi.runs.outage import OutageLog
from jimsapi.runs.service import RunService
from jimsapi.stores.sqlite import SQLiteStore
from jimsapi.threads.errors import StoreUnavailable, StoreUnusable
from tests.apps.scripted import Scripted

FULL = StoreUnavailable("SQLite: database or disk is full", "disk full")


@pytest.fixture(autouse=True)
def no_quiet_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outage, "QUIET", 0.0)


def test_an_outage_is_logged_once_for_each_cause_and_once_when_it_is_over(caplog: pytest.LogCaptureFixture) -> None:
    log = OutageLog()
    log.works()
    for _ in range(2):
        for _ in range(3):
            log.failed(FULL)
            log.failed(StoreUnavailable("SQLite: no answer within 5 s"))
        log.works()
        log.works()
    assert [(record.levelno, record.getMessage()) for record in caplog.records] == [
        (logging.ERROR, "the store is unavailable: SQLite: database or disk is full"),
        (logging.ERROR, "the store is unavailable: SQLite: no answer within 5 s"),
        (logging.WARNING, "the store works again, after 0 s"),
    ] * 2


def test_a_success_between_failures_ends_no_outage(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outage, "QUIET", 60.0)
    log = OutageLog()
    for _ in range(3):
        log.failed(FULL)
        log.works()
    assert len(caplog.records) == 1


def test_what_is_noted_is_raised_on(caplog: pytest.LogCaptureFixture) -> None:
    log = OutageLog()
    with pytest.raises(StoreUnavailable), log.noted():
        raise FULL
    assert len(caplog.records) == 1


@pytest.mark.anyio
async def test_a_service_whose_store_fails_at_the_start_says_so_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "jims.db"
    async with SQLiteStore(path) as store:
        neighbour = sqlite3.connect(path, isolation_level=None)
        neighbour.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnusable, match=r"cannot be read: .*locked") as refused:
            await RunService(JimsApp(Scripted()), store, []).__aenter__()
        neighbour.close()
    assert "\n" not in str(refused.value)
