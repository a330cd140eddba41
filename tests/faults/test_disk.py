"""A store that breaks below a server: clients get 503, the log has a line, nothing acknowledged is lost."""

import pytest

from tests.faults.disk import FAULTS, suffer
from tests.faults.report import Figures, broken

pytestmark = pytest.mark.anyio

SECONDS = 1.0
"""How long a fault lasts."""


async def suffered(name: str) -> tuple[Figures, list[str]]:
    """What a fault leads to, and what the log says. Fails if a promise is broken."""
    figures, lines = await suffer(FAULTS[name], SECONDS)
    assert broken(figures, FAULTS[name].promised_none) == {}
    return figures, lines


@pytest.mark.parametrize("name", ["full", "database-removed"])
async def test_a_server_recovers_by_itself_once_its_store_works_again(name: str) -> None:
    figures, _ = await suffered(name)
    assert figures["messages answered"] == 0
    assert figures["messages refused"] > 0


async def test_a_damaged_database_is_refused_while_it_is_served_and_at_the_next_start() -> None:
    figures, lines = await suffered("damaged")
    assert figures["starts refused"] == 1
    assert "restore a backup" in lines[-1]


async def test_a_removed_log_takes_nothing_that_was_acknowledged() -> None:
    figures, _ = await suffered("wal-removed")
    assert figures["not recovered by itself"] == figures["acknowledged and lost"] == 0
