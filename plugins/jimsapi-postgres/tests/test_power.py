"""Power cuts below PostgreSQL and a server on it: what was acknowledged survives whatever was not synced."""

from random import Random

import pytest

from tests.faults.power import PROMISED_NONE, cut_power, machine_of, unrecorded
from tests.faults.report import broken

pytestmark = pytest.mark.anyio


async def test_a_power_cut_takes_nothing_that_was_acknowledged() -> None:
    random = Random(21)
    with machine_of("postgresql", "durable", random, lies=False) as machine:
        figures = await cut_power(machine, 2, random)
    assert broken(figures, PROMISED_NONE) == {}
    assert figures["acknowledged"] > 0


async def test_the_record_of_the_disk_has_all_that_postgresql_writes() -> None:
    with machine_of("postgresql", "durable", Random(1), lies=False) as machine:
        assert await unrecorded(machine) == set()
