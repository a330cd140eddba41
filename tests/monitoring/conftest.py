"""Two servers under load, and a Prometheus that scrapes them."""

import asyncio
from collections.abc import Iterator
from typing import NamedTuple

import pytest

from tests.monitoring.observed import (
    ADMITTED,
    CHAT,
    Observed,
    no_room,
    rejecting_receiver,
    trouble,
    troubled,
)
from tests.monitoring.prometheus import Prometheus

HELLO = {"contact_id": "ann", "message": "hi"}


class Scraped(NamedTuple):
    """Servers, and the Prometheus that scrapes them."""

    servers: tuple[Observed, Observed]
    prometheus: Prometheus


@pytest.fixture(scope="module")
def scraped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scraped]:
    """The first server has had all troubles, the second one has answered messages."""
    first = troubled(tmp_path_factory.mktemp("troubled"))
    second = Observed("--app", "tests.apps.scripted:app")
    with (
        first,
        second,
        rejecting_receiver() as receiver,
        Prometheus(first.metrics_port, second.metrics_port) as scraper,
    ):
        asyncio.run(trouble(first, receiver))
        with first.client(headers=ADMITTED) as client, no_room(first):
            assert client.post(CHAT, json=HELLO).status_code == 503
        with second.client() as client:
            client.post(CHAT, json=HELLO).raise_for_status()
        yield Scraped((first, second), scraper)
