"""What fails until the command's WebSockets keep what comes behind a handshake, and log no error for a refused one.

Then the command's own protocol goes into the list of test_requests.py, and this file goes.
"""

import asyncio

from tests.hostile.requests import assault
from tests.hostile.servers import OURS, serve

COUNT = 1_000


def test_the_command_answers_or_closes_and_works_on() -> None:
    with serve(OURS, "memory:") as served:
        report = asyncio.run(assault(served, OURS, COUNT, seed=12))
    assert report.wrong == []
