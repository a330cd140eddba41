"""Servers that are killed, and power that is cut: files that were stored are there, and deleted ones are not."""

from pathlib import Path
from random import Random

import pytest

from tests.faults.kill import PROMISED_NONE, kill_servers
from tests.faults.places import SQLitePlace
from tests.faults.power import cut_power, machine_of, unrecorded
from tests.faults.report import Figures, broken

pytestmark = pytest.mark.anyio


def check(figures: Figures) -> None:
    assert broken(figures, PROMISED_NONE) == {}
    assert figures["files"] > 0
    assert figures["files deleted"] > 0


async def test_servers_that_are_killed_keep_the_files_that_they_acknowledged(tmp_path: Path) -> None:
    check(await kill_servers(SQLitePlace(tmp_path), 6, Random(1), servers=1))


async def test_a_power_cut_takes_no_file_that_was_acknowledged_and_brings_none_back() -> None:
    random = Random(1)
    with machine_of("sqlite", "durable", random, lies=False) as machine:
        check(await cut_power(machine, 6, random))


async def test_the_record_of_the_disk_has_all_that_the_file_store_writes() -> None:
    with machine_of("sqlite", "durable", Random(1), lies=False) as machine:
        assert await unrecorded(machine) == {"jims.db-shm"}  # mapped memory, which SQLite makes anew
