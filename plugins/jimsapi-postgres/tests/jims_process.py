"""The real jims-core, as another program on a test's database. It needs Python 3.12: an environment of its own."""

import json
import os
import shutil
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest

PROGRAM = str(Path(__file__).with_name("jims_program.py"))
NEEDED = ["jims-core==0.6.2", "asyncpg", "aiosqlite"]
DRIVERS = {"postgresql://": "postgresql+asyncpg://", "sqlite://": "sqlite+aiosqlite://"}


def jims_python(config: pytest.Config) -> str:
    """The interpreter that has jims-core, asyncpg and aiosqlite.

    It is named by `JIMSAPI_JIMS_PYTHON`; without that an environment is made once, in pytest's cache, of the first
    newer Python that is found.
    """
    if named := os.environ.get("JIMSAPI_JIMS_PYTHON"):
        return named
    assert config.cache is not None
    folder = Path(config.cache.mkdir("jims-core-0.6.2-both"))
    python = folder / "bin" / "python"
    if not (folder / "complete").exists():
        found = next(filter(None, map(shutil.which, ("python3.13", "python3.12", "python3.14"))), None)
        if found is None:
            pytest.fail("jims-core needs Python 3.12 or newer: install one, or name it in JIMSAPI_JIMS_PYTHON")
        subprocess.run([found, "-m", "venv", "--clear", str(folder)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", *NEEDED], check=True)
        (folder / "complete").touch()
    return str(python)


class Jims:
    """A process on jims-core that works on one database at a time. A context manager: starts and ends it."""

    def __init__(self, python: str) -> None:
        self._python = python

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [self._python, PROGRAM], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
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
