"""Open streams at a shutdown, and cancels at any moment: everybody is told the end, and no thread stays locked."""

import asyncio
import signal
from collections import Counter
from pathlib import Path
from random import Random

import httpx
import pytest

from tests.api.conversation import CHAT, RUNS, STREAM, body, parse
from tests.faults.database import runs, said, statuses
from tests.faults.paced import paced_server, until
from tests.faults.test_drain import exit_status, signal_to

pytestmark = pytest.mark.anyio

STREAMS = 100
CANCELS = 500
CALLERS = 25


async def test_a_signal_with_a_hundred_open_streams_tells_each_its_end(tmp_path: Path) -> None:
    """Half of them end within the drain time; the rest are interrupted, two of them deaf to it."""
    database, release = tmp_path / "jims.db", tmp_path / "release"
    commands = [f"until {release}" if number % 2 else "wait 3600" for number in range(STREAMS)]
    commands[0] = commands[2] = "stubborn"
    with paced_server(database, "--drain-time", "10") as served:
        async with served.async_client() as client:

            async def watch(number: int) -> tuple[httpx.Response, str]:
                """Read a stream to its end."""
                sent = body(f"{number} {commands[number]}", f"{number}")
                async with client.stream("POST", STREAM, json=sent) as stream:
                    return stream, (await stream.aread()).decode()

            watching = [asyncio.create_task(watch(number)) for number in range(STREAMS)]
            await until(lambda: statuses(database) == {"running": STREAMS})
            signal_to(served, signal.SIGTERM)
            while (await client.get("/readyz")).status_code != 503:
                await asyncio.sleep(0.01)
            release.touch()
            status = await exit_status(served)
            answers = await asyncio.gather(*watching)
    assert status == 0
    for number, (_, text) in enumerate(answers):
        events = parse(text)
        assert (events[0].name, events[-1].id) == ("started", "end")
        if number % 2:
            assert events[-1].name == "result"
        else:
            assert events[-1][1:] == ("error", {"detail": "The run was interrupted; try again"})
    assert statuses(database) == {"completed": STREAMS // 2, "interrupted": STREAMS // 2}
    assert said(database, "user").total() == STREAMS
    assert said(database, "assistant").total() == STREAMS // 2


async def test_cancels_at_random_moments_over_http(tmp_path: Path) -> None:
    """Several callers at a time send and cancel in the same few threads; afterwards each thread answers, and the store,
    the run and its stream say the same of each."""
    database, moments = tmp_path / "jims.db", Random(3)
    told: dict[str, str] = {}
    with paced_server(database, "--durability", "relaxed") as served:
        async with served.async_client() as client:

            async def cancel(run_id: str) -> None:
                await asyncio.sleep(moments.choice((0, 0, 0.002, 0.01)))
                answer = await client.post(f"{RUNS}/{run_id}/cancel")
                assert answer.status_code in (202, 409), answer.text
                told[run_id] = "cancelled" if answer.status_code == 202 else "completed"

            async def cancel_some(caller: int) -> None:
                for number in range(CANCELS // CALLERS):
                    command = moments.choice(("now", "now", "wait 0.01", "wait 3600"))
                    sent = body(f"{caller}.{number} {command}", f"{caller % 10}")
                    if moments.random() < 0.5:
                        await cancel((await client.post(RUNS, json=sent)).json()["run_id"])
                        continue
                    async with client.stream("POST", STREAM, json=sent) as stream:
                        run_id = stream.headers["x-run-id"]
                        await cancel(run_id)
                        last = parse((await stream.aread()).decode())[-1]
                    error = {"detail": "The run was cancelled"}
                    assert (last.data == error) == (told[run_id] == "cancelled")

            await asyncio.gather(*(cancel_some(caller) for caller in range(CALLERS)))
            further = [client.post(CHAT, json=body("further now", f"{number}")) for number in range(10)]
            assert {answer.status_code for answer in await asyncio.gather(*further)} == {200}
            shown = {run_id: (await client.get(f"{RUNS}/{run_id}")).json()["status"] for run_id in told}
    assert shown == told
    how_many = Counter(told.values())
    assert how_many.total() == CANCELS
    assert min(how_many.values()) > 20, how_many  # else the moments test nothing
    stored = runs(database)
    assert {run_id: stored[run_id.replace("-", "")] for run_id in told} == told
    assert statuses(database) == how_many + Counter(completed=10)
    assert said(database, "assistant").total() == how_many["completed"] + 10
