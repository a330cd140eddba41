"""Callers that leave and pipelines that do not: neither locks a thread."""

import asyncio
from collections import Counter
from pathlib import Path
from random import Random

import pytest

from tests.faults.database import said, statuses
from tests.faults.paced import paced_server, until
from tests.faults.wire import Wire

pytestmark = pytest.mark.anyio

CONTACTS = 12
MESSAGES_EACH = 8


async def test_callers_that_hang_up_at_any_moment_leave_no_thread_locked(tmp_path: Path) -> None:
    database = tmp_path / "jims.db"
    moments = Random(8)
    with paced_server(database) as served:

        async def leave_early(contact: int) -> None:
            """Send messages, and leave each at another moment: within its sending, its run or its answer."""
            for number in range(MESSAGES_EACH):
                wire = Wire(served.port)
                kept_back = moments.choice((0, 0, 0, 5))
                await wire.send_chat(f"{contact}", f"{contact}.{number} wait 0.02", keep_back=kept_back)
                await asyncio.sleep(moments.uniform(0, 0.06))
                wire.hang_up() if moments.random() < 0.5 else wire.close()

        await asyncio.gather(*(leave_early(contact) for contact in range(CONTACTS)))
        answers = await asyncio.gather(*(Wire(served.port).chat(f"{c}", f"{c}.last now") for c in range(CONTACTS)))

        assert Counter(answer.status for answer in answers) == {200: CONTACTS}
        await until(lambda: statuses(database).keys() == {"completed"})
        assert said(database, "user") == said(database, "assistant")
        assert set(said(database, "user").values()) == {1}
        assert statuses(database)["completed"] > 2 * CONTACTS


async def test_a_caller_that_hung_up_finds_its_answer_in_the_thread(tmp_path: Path) -> None:
    database = tmp_path / "jims.db"
    release = tmp_path / "release"
    with paced_server(database) as served:
        wire = Wire(served.port)
        await wire.send_chat("a", f"a until {release}")
        await until(lambda: statuses(database) == {"running": 1})
        wire.hang_up()
        release.touch()
        await until(lambda: statuses(database) == {"completed": 1})
        assert said(database, "assistant") == {f"a until {release}": 1}


@pytest.mark.parametrize("command", ["wait 3600", "stubborn"])
async def test_a_run_past_its_time_limit_is_answered_504_and_its_thread_goes_on(tmp_path: Path, command: str) -> None:
    database = tmp_path / "jims.db"
    with paced_server(database, "--run-timeout", "0.3") as served:
        late = asyncio.create_task(Wire(served.port).chat("a", f"late {command}"))
        await until(lambda: statuses(database) == {"running": 1})
        behind = asyncio.create_task(Wire(served.port).chat("a", "behind now"))
        answer = await late
        assert (answer.status, answer.json()) == (504, {"detail": "The pipeline did not answer within 0.3 seconds"})
        assert (await behind).status == 200
        assert (await Wire(served.port).chat("a", "after now")).status == 200
    assert statuses(database) == {"failed": 1, "completed": 2}
    assert said(database, "user") == {f"late {command}": 1, "behind now": 1, "after now": 1}
    assert said(database, "assistant") == {"behind now": 1, "after now": 1}
