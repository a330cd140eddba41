"""Power cuts: a durable store loses nothing, a relaxed one stays whole, and a disk that lies is found out."""

from random import Random

import pytest

from tests.faults.power import PROMISED_NONE, RELAXED_NONE, cut_power, machine_of, unrecorded
from tests.faults.report import Figures, broken

pytestmark = pytest.mark.anyio


async def cut(durability: str, cuts: int, seed: int, *, lies: bool = False) -> Figures:
    random = Random(seed)
    with machine_of("sqlite", durability, random, lies=lies) as machine:
        return await cut_power(machine, cuts, random)


async def test_a_power_cut_takes_nothing_that_a_durable_store_acknowledged() -> None:
    figures = await cut("durable", 4, 2)
    assert broken(figures, PROMISED_NONE) == {}
    assert figures["acknowledged"] > 0
    assert figures["cuts in a start"] > 0


async def test_a_power_cut_leaves_a_relaxed_store_whole() -> None:
    figures = await cut("relaxed", 3, 6)
    assert broken(figures, RELAXED_NONE) == {}


async def test_a_disk_that_lies_about_syncs_loses_what_was_acknowledged() -> None:
    figures = await cut("durable", 1, 2, lies=True)
    assert figures["acknowledged and lost"] + figures["stores damaged"] > 0


async def test_the_record_of_the_disk_has_all_that_sqlite_writes() -> None:
    with machine_of("sqlite", "durable", Random(1), lies=False) as machine:
        assert await unrecorded(machine) == {"jims.db-shm"}  # mapped memory, which SQLite makes anew
