"""The command with the paced bot, and how to wait for what it does."""

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path

from tests.serving import Served

PACED = "tests.apps.paced:app"
PATIENCE = 30.0
LOOK_EVERY = 0.01


def paced_server(
    database: Path, *options: str, folder: Path | None = None, env: Mapping[str, str] | None = None
) -> Served:
    """The command with the paced bot over an SQLite file, not started yet. A reloader watches its current `folder`."""
    return Served("--app", PACED, "--store", f"sqlite:///{database}", *options, folder=folder, env=env)


async def until(holds: Callable[[], bool]) -> None:
    """Wait until something holds. Raises `TimeoutError` if it never does."""
    async with asyncio.timeout(PATIENCE):
        while not holds():
            await asyncio.sleep(LOOK_EVERY)
