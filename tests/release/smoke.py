"""Uses an installed distribution: `python -I smoke.py DISTRIBUTION`, in the environment in which it is installed.

It imports the packages and entry points of the distribution, lists it with the command, and has a chat with a server
that loads all installed plugins.
"""

import asyncio
import importlib
import subprocess
import sys
from importlib.metadata import distribution


async def chat() -> list[str]:
    """Return the answer of a server to a message."""
    from jimsapi import ThreadContext, create_api
    from jimsapi.asgi.testing import TestClient

    async def answer(ctx: ThreadContext) -> None:
        ctx.send_message(f"You said: {ctx.get_last_user_message()}")

    async with TestClient(create_api(answer, store="memory:")) as client:
        answered = await client.post("/api/v1/chat", json={"contact_id": "ann", "message": "hi"})
    messages: list[str] = answered.json()["assistant_messages"]
    return messages


def command(*arguments: str) -> str:
    """Return what the command `jimsapi` prints."""
    return subprocess.run(
        [sys.executable, "-I", "-m", "jimsapi", *arguments], check=True, capture_output=True, text=True
    ).stdout


def main(name: str) -> None:
    """Raise an error if the distribution cannot be used."""
    installed = distribution(name)
    for package in {file.parts[0] for file in installed.files or () if file.name == "__init__.py"}:
        importlib.import_module(package)
    for point in installed.entry_points:
        if point.group != "pytest11":  # pytest is not installed
            point.load()
    assert command("--version").strip() == f"jimsapi {distribution('jimsapi').version}"
    if installed.entry_points.select(group="jimsapi"):
        assert f" {name} {installed.version} " in command("plugins")
    assert asyncio.run(chat()) == ["You said: hi"]


if __name__ == "__main__":
    main(sys.argv[1])
