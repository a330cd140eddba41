"""Power cuts below PostgreSQL and a server on it: what was acknowledged survives whatever was not synced."""

from random import Random

import pytest

from tests.faults.power import PROMISED_NONE, cut_power, machine_of
from tests.faults.report import Figures, broken

pytestmark = pytest.mark.anyio


async def cut(cuts: int, seed: int, *, lies: bool = False) -> Figures:
    random = Random(seed)
    with machine_of("postgresql", "durable", random, lies=lies) as machine:
        return await cut_power(machine, cuts, random)


async def test_a_power_cut_takes_nothing_that_was_acknowledged() -> None:
    figures = await cut(2, 21)
    assert broken(figures, PROMISED_NONE) == {}
    assert figures["acknowledged"] > 0


async def test_a_disk_that_lies_about_syncs_loses_what_was_acknowledged() -> None:
    figures = await cut(1, 37, lies=True)
    assert figures["acknowledged and lost"] + figures["stores damaged"] > 0
