"""Faults between servers and PostgreSQL, under load: an outcome that nobody knows is settled, once.

    python -m tests.faults.doubt --times 100

The answer to a commit is lost with its connection; all connections are cut at any moment; PostgreSQL becomes read-only,
as after a failover; PostgreSQL is restarted.
"""

import argparse
import asyncio
import sys
from collections import Counter
from random import Random, randrange
from typing import Any

from tests.faults.journal import Journal
from tests.faults.kill import PROMISED_NONE, goes_on, loaded_servers, settle
from tests.faults.places import PostgresPlace, postgres_proxy, postgres_server
from tests.faults.report import Figures, show
from tests.faults.verify import SETTLES_WITHIN

WEIGHTS = {"commits in doubt": 6, "cuts of all connections": 3, "times read-only": 1, "restarts": 1}
STATEMENTS = (b"jimsapi_accept", b"jimsapi_finish")
BETWEEN = (0.0, 0.2)
"""Seconds of load between two faults."""
READ_ONLY_FOR = (0.1, 1.0)


async def put_in_doubt(postgres: Any, times: int, random: Random) -> Figures:
    """Let one fault follow another between PostgreSQL and two servers under load."""
    journal = Journal()
    faults: Counter[str] = Counter(dict.fromkeys(WEIGHTS, 0))
    async with postgres_proxy(postgres) as proxy:
        place = PostgresPlace(postgres, through=proxy.port)
        async with loaded_servers(place, journal, random, 2) as (victims, sink):
            for _ in range(times):
                await asyncio.sleep(random.uniform(*BETWEEN))
                fault = random.choices([*WEIGHTS], [*WEIGHTS.values()])[0]
                await _do(fault, postgres, place, proxy, random)
                faults[fault] += 1
                await goes_on(journal)
            return dict(faults) | await settle(place, journal, sink, victims)


async def _do(fault: str, postgres: Any, place: PostgresPlace, proxy: Any, random: Random) -> None:
    if fault == "commits in doubt":
        proxy.lost.clear()
        proxy.lose_answer_to = random.choice(STATEMENTS)
        async with asyncio.timeout(SETTLES_WITHIN):
            await proxy.lost.wait()
    elif fault == "cuts of all connections":
        proxy.cut_all()
    elif fault == "times read-only":
        await asyncio.to_thread(place.set_read_only, True)
        await asyncio.sleep(random.uniform(*READ_ONLY_FOR))
        await asyncio.to_thread(place.set_read_only, False)
    else:
        await asyncio.to_thread(postgres.restart)


def main() -> int:
    parser = argparse.ArgumentParser(description="Lose answers of PostgreSQL under load, and count what is doubled.")
    parser.add_argument("--times", type=int, default=100)
    parser.add_argument("--seed", type=int, default=randrange(2**32))
    given = parser.parse_args()
    with postgres_server(fsync="off") as postgres:
        figures = asyncio.run(put_in_doubt(postgres, given.times, Random(given.seed)))
    return 0 if show(f"PostgreSQL in doubt, seed {given.seed}", figures, PROMISED_NONE) else 1


if __name__ == "__main__":
    sys.exit(main())
