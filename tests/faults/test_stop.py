"""SIGTERM under load: the process ends with 0, every accepted message is answered and every stream has its end."""

from random import Random

import pytest

from tests.faults.report import broken
from tests.faults.stop import PROMISED_NONE, stop_servers

pytestmark = pytest.mark.anyio


async def test_stops_under_load_are_clean_for_the_process_and_its_clients() -> None:
    figures = await stop_servers(2, Random(1))
    assert broken(figures, PROMISED_NONE) == {}
    assert figures["acknowledged"] > 0
    assert figures["streams"] > 0
    assert figures["refusals"] > 0
