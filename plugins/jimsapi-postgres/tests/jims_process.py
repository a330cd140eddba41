"""The real jims-core, as another program on a test's database."""

import json
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Self

PROGRAM = str(Path(__file__).with_name("jims_program.py"))
DRIVERS = {"postgresql://": "postgresql+asyncpg://", "sqlite://": "sqlite+aiosqlite://"}


class Jims:
    """A process on jims-core that works on one database at a time. A context manager: starts and ends it."""

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, PROGRAM], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._hear() == "ready"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._process.kill()
        with self._process:
            pass

    def open(self, url: str) -> None:
        """Connect to a database of ours; JIMS's tables are made where they are missing."""
        for ours, theirs in DRIVERS.items():
            url = url.replace(ours, theirs)
        self.ask("open", url)

    def close(self) -> None:
        """Leave the database."""
        self.ask("close")

    def ask(self, *command: str) -> Any:
        """Have a command of `jims_program.py` done; returns its answer."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()
        return self._hear()

    def _hear(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the program on jims-core died"
        return json.loads(line)
