"""A tutorial, walked from start to end: every file is written, every command is run, and what it prints is compared."""

import re
import subprocess
from pathlib import Path
from typing import NamedTuple

from tests.clean_venv import CleanVenv, our_wheel
from tests.docs.snippets import ROOT
from tests.ports import free_port

PORT, METRICS_PORT = "8080", "8000"

_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_FILE_NAME = re.compile(r"(?:# |<!-- )([\w./-]+\.\w+)(?: -->)?\n")
_SERVES = re.compile(r"jimsapi( --.*)?")


class Step(NamedTuple):
    """A block of the page: a file (`python`, `toml`, `md`), commands (`sh`), or what they print (`text`).

    `stops_server` says whether the text before the block, after the block before, has the reader press Ctrl-C.
    """

    language: str
    code: str
    stops_server: bool = False


def steps(page: str) -> list[Step]:
    found: list[Step] = []
    end = 0
    text = (ROOT / page).read_text(encoding="utf-8")
    for block in _BLOCK.finditer(text):
        found.append(Step(block[1], block[2], "Ctrl-C" in text[end : block.start()]))
        end = block.end()
    return found


def walk(page: str, folder: Path) -> None:
    """Follow a page. Fails at the first step that does not do what the page says."""
    walker = Walker(folder)
    all_steps = steps(page)
    try:
        for step, following in zip(all_steps, [*all_steps[1:], Step("", "")], strict=True):
            if step.stops_server:
                walker.stop()
            match step.language:
                case "sh" if _SERVES.fullmatch(step.code.strip()):
                    walker.serve(step.code.strip())
                case "sh":
                    walker.run(step.code)
                    may_fail = following.language == "text" and "FAILED " in following.code
                    assert walker.status == int(may_fail), f"{step.code}\n{walker.printed}"
                case "text":
                    walker.compare(step.code)
                case _:
                    walker.write(step.code)
    finally:
        walker.stop()


class Walker:
    """Somebody who follows a page in a shell, in a virtual environment with jimsapi in it."""

    def __init__(self, folder: Path) -> None:
        self.venv = CleanVenv(folder / "venv", "mypy", "pip", "pytest", "ruff", "setuptools", "websockets")
        self.venv.install(our_wheel())
        self.folder = folder / "work"
        self.folder.mkdir()
        # pip finds everything here already, and downloads nothing. (Its variable for no isolation is "0" when set.)
        self.environment = self.venv.environment({"PIP_NO_INDEX": "1", "PIP_NO_BUILD_ISOLATION": "0"})
        self.ports = {PORT: str(free_port()), METRICS_PORT: str(free_port())}
        self.printed = ""
        self.status = 0
        self.server: subprocess.Popen[str] | None = None

    def write(self, code: str) -> None:
        """Write a file, whose name is the first line."""
        named = _FILE_NAME.match(code)
        assert named is not None, f"this block does not begin with its file's name:\n{code}"
        self.folder.joinpath(named[1]).write_text(self._with_ports(code[named.end() :]), encoding="utf-8")

    def run(self, code: str) -> None:
        """Run commands, in the folder where the last ones ended."""
        ended = self.venv.bin / "ended"
        ran = subprocess.run(
            ["bash", "-euc", f"trap 'pwd > {ended}' EXIT\n{self._with_ports(code)}"],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=120,
            check=False,
        )
        self.printed, self.status = ran.stdout, ran.returncode
        self.folder = Path(ended.read_text(encoding="utf-8").strip())

    def serve(self, code: str) -> None:
        """Start a server and leave it to run. A request waits until the server answers."""
        assert self.server is None, f"a server runs: the page does not say to stop it before\n{code}"
        ports = f"--port {self.ports[PORT]} --metrics-port {self.ports[METRICS_PORT]}"
        self.server = subprocess.Popen(
            ["bash", "-euc", f"exec {code} {ports}"],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.server.stderr is not None
        said = next((line for line in self.server.stderr if self.ports[PORT] in line), None)
        assert said is not None, "the server ended before it said where it serves"

    def stop(self) -> None:
        """Stop the server, if there is one."""
        if self.server is not None:
            self.server.terminate()
            self.server.communicate(timeout=30)
            assert self.server.returncode == 0
            self.server = None

    def compare(self, expected: str) -> None:
        """Fail unless the last commands printed these lines in this order; `…` stands for anything.

        After a test's name pytest gives the reason where the line has room for it, and always where `CI` is set.
        """
        lines = iter(self.printed.splitlines())
        for line in expected.splitlines():
            pattern = re.escape(line).replace("…", ".*") + ("( - .*)?" if line.startswith("FAILED ") else "")
            assert any(re.fullmatch(pattern, printed.rstrip()) for printed in lines), f"{line}\n\n{self.printed}"
        assert self.printed.count("FAILED ") == expected.count("FAILED "), self.printed

    def _with_ports(self, code: str) -> str:
        for shown, port in self.ports.items():
            code = code.replace(f"localhost:{shown}", f"localhost:{port}")
        return code
