"""Over connections that are cut after a random number of bytes, every item comes once, in order."""

import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import anyio
import pytest

from jimsapi.client import AsyncClient, Client, Delta, Event, Item, Result, Started, Status
from tests.client.cutter import Cutter
from tests.serving import Served

RUNS = 100
AT_ONCE = 20
LONGEST = 3000
SEED = 77


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with Served("--app", "tests.apps.scripted:app") as server:
        yield server


def script(number: int) -> tuple[str, list[str]]:
    """A message for a contact of its own, and what its stream is to tell between `started` and `result`."""
    choice = random.Random(number)
    words = [
        f"{word}é" for word in choice.choices(["Hel", "lo", "wor", "ld\u2028", "x" * 100], k=choice.randint(3, 12))
    ]
    steps, told = ["status Looking", "event Found"], ["status Looking"]
    for word in words:
        steps.append(f"stream {word}")
        told.append(f"delta {word}")
        if choice.random() < 0.3:
            steps.append(f"status {word}")
            told.append(f"status {word}")
    return "; ".join(steps), [*told, "event Found", f"event {''.join(words)}"]


def told(items: list[Item]) -> list[str]:
    """The same of what came."""
    lines = []
    for item in items[1:-1]:
        match item:
            case Status(status=status):
                lines.append(f"status {status}")
            case Delta(content=content):
                lines.append(f"delta {content}")
            case Event(event_data=data):
                lines.append(f"event {data.get('text') or data['content']}")
            case _:
                lines.append(repr(item))
    return lines


def check(number: int, items: list[Item], direct: Client) -> None:
    """What came is what was to come, and what the server says of the run to who is not cut."""
    assert isinstance(items[0], Started)
    assert isinstance(items[-1], Result)
    assert told(items) == script(number)[1]
    assert list(direct.watch(items[0].run_id)) == items


def test_the_sync_client_gets_every_item_of_a_hundred_runs_once_in_order(served: Served) -> None:
    def ask(number: int) -> list[Item]:
        return list(client.stream(script(number)[0], contact_id=f"sync {number}"))

    with (
        Cutter(served.port, LONGEST, SEED) as cutter,
        Client(cutter.url) as client,
        Client(served.url) as direct,
        ThreadPoolExecutor(AT_ONCE) as threads,
    ):
        for number, items in enumerate(threads.map(ask, range(RUNS))):
            check(number, items, direct)
        assert cutter.cuts > RUNS


@pytest.mark.anyio
async def test_the_async_client_does_too(served: Served) -> None:
    found: dict[int, list[Item]] = {}

    async def ask(number: int) -> None:
        async with gate:
            message = script(number)[0]
            found[number] = [item async for item in client.stream(message, contact_id=f"async {number}")]

    gate = anyio.Semaphore(AT_ONCE)
    with Cutter(served.port, LONGEST, SEED) as cutter, Client(served.url) as direct:
        async with AsyncClient(cutter.url) as client, anyio.create_task_group() as tasks:
            for number in range(RUNS):
                tasks.start_soon(ask, number)
        for number, items in found.items():
            check(number, items, direct)
        assert len(found) == RUNS
        assert cutter.cuts > RUNS


def test_a_message_whose_answer_was_cut_is_answered_once(served: Served) -> None:
    with Cutter(served.port, 1600, SEED) as cutter, Client(cutter.url) as client, Client(served.url) as direct:
        for number in range(20):
            assert client.chat(f"Hello {number}", contact_id="chat").assistant_messages == [f"You said: Hello {number}"]
        [seen] = direct.chat("see", contact_id="chat").assistant_messages
        assert cutter.cuts
    assert seen.count("Hello") == 20
