"""A store that breaks below a server: clients get 503, and nothing that was acknowledged is lost."""

import pytest

from tests.faults.disk import FAULTS, NO_LINE, suffer
from tests.faults.report import Figures, broken

pytestmark = pytest.mark.anyio

SECONDS = 1.0
"""How long a fault lasts: the server may take longer to log it."""


async def suffered(name: str) -> tuple[Figures, Figures]:
    """What a fault leads to, and what of it breaks a promise."""
    figures, _ = await suffer(FAULTS[name], SECONDS)
    return figures, broken(figures, set(FAULTS[name].promised_none) - {NO_LINE})


@pytest.mark.parametrize("name", ["full", "database-removed"])
async def test_a_server_recovers_by_itself_once_its_store_works_again(name: str) -> None:
    figures, wrong = await suffered(name)
    assert wrong == {}
    assert figures["messages answered"] == 0
    assert figures["messages refused"] > 0


async def test_a_damaged_database_is_refused_while_it_is_served_and_at_the_next_start() -> None:
    figures, wrong = await suffered("damaged")
    assert wrong == {}
    assert figures["starts refused"] == 1
