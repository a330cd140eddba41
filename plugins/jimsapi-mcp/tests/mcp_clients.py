"""MCP's own clients, each as a process that performs a scenario and writes what happens, a line of JSON after another.

    talk = converse(client, f"{served.url}/mcp", {"list": "tools"}, {"call": "chat", "arguments": {"message": "Hello"}})
    talk.results                                      # what came of each step

A step is one of

    {"list": "tools" | "resources" | "templates"}
    {"read": uri}
    {"call": tool, "arguments": {…}, "progress": true, "cancel_at": "a message of the progress"}

The texts `$run_id`, `$thread_id`, `$question_id` and `$uri` (of a file) in a step stand for those of the newest result.
A call becomes `{"progress": […], "result": …}`, or `"error"` or `"cancelled"` in place of `"result"`. `answers` are the
results of `elicitation/create`, in order; without them a client does not declare that it can ask a person.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Timer
from types import TracebackType
from typing import Any, Self

from tests.node import install, node

HERE = Path(__file__).parent
RUN_WITHIN = 60.0


@dataclass(frozen=True)
class McpClient:
    """A client out of a registry, and the era that it is configured for."""

    package: str
    era: str

    def __str__(self) -> str:
        return f"{self.package.rpartition('/')[2]}-{self.era}"

    @property
    def version(self) -> str:
        """The version of the protocol that it agrees on with our server."""
        return "2026-07-28" if self.era == "modern" else "2025-11-25"

    @property
    def command(self) -> list[str]:
        """The program, without its scenario."""
        if self.package == "mcp":
            return [sys.executable, str(HERE / "python_client.py")]
        install(HERE)
        return [str(node()), str(HERE / "typescript_client.mjs")]


CLIENTS = (
    McpClient("mcp", "modern"),
    McpClient("mcp", "legacy"),
    McpClient("@modelcontextprotocol/client", "modern"),
    McpClient("@modelcontextprotocol/client", "legacy"),
    McpClient("@modelcontextprotocol/sdk", "legacy"),
)


@dataclass
class Talk:
    """What a client has written."""

    connected: Any = None
    results: list[Any] = field(default_factory=list)
    asked: list[Any] = field(default_factory=list)


class Performance:
    """A client that performs a scenario, from entering to leaving; a client that is left too early is killed.

    It fails if the client does not end within `within` seconds, ends with an error, or writes to stderr.
    """

    def __init__(
        self,
        client: McpClient,
        url: str,
        *steps: Any,
        headers: Mapping[str, str] | None = None,
        answers: Sequence[Any] | None = None,
        sign_in: bool = False,
        env: Mapping[str, str] | None = None,
        within: float = RUN_WITHIN,
    ) -> None:
        scenario = {
            "package": client.package, "era": client.era, "url": url, "headers": headers or {}, "answers": answers,
            "sign_in": sign_in, "steps": steps,
        }  # fmt: skip
        self.talk = Talk()
        self._within = within
        self._process = subprocess.Popen(
            [*client.command, json.dumps(scenario)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, **(env or {})},
        )
        self._lines = self._read()
        self._watch = Timer(within, self._process.kill)

    def __enter__(self) -> Self:
        self._watch.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._watch.cancel()
        self.kill()

    def kill(self) -> None:
        """End it at once, as a crash does."""
        self._process.kill()
        self._process.communicate()

    def wait_for(self, kind: str) -> Any:
        """Read on until a line of this kind, and return what it says."""
        for line in self._lines:
            if kind in line:
                return line[kind]
        self._fail(f"it ended without {kind!r}")
        raise AssertionError

    def finish(self) -> Talk:
        """Read on to the end."""
        for _ in self._lines:
            pass
        _, stderr = self._process.communicate()
        if self._process.returncode != 0 or stderr:
            self._fail(stderr.decode())
        return self.talk

    def _read(self) -> Iterator[Any]:
        assert self._process.stdout is not None
        for written in self._process.stdout:
            line = json.loads(written)
            match line:
                case {"connected": connected}:
                    self.talk.connected = connected
                case {"step": result}:
                    self.talk.results.append(result)
                case {"asked": question}:
                    self.talk.asked.append(question)
            yield line

    def _fail(self, why: str) -> None:
        self._process.kill()
        _, stderr = self._process.communicate()
        raise AssertionError(
            f"the client ended with {self._process.returncode} (it had {self._within:g} s): {why}{stderr.decode()}\n"
            f"it wrote {self.talk}"
        )


def converse(client: McpClient, url: str, *steps: Any, **options: Any) -> Talk:
    """Perform a scenario to its end. `options` are those of `Performance`."""
    with Performance(client, url, *steps, **options) as performance:
        return performance.finish()


def text_of(called: Any) -> str:
    """The text of what a tool answered."""
    return "\n".join(part["text"] for part in called["result"]["content"])
