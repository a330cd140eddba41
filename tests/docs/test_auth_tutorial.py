"""The tutorial for authors of auth plugins, walked from start to end: every file written, every command run."""

import re
import subprocess
from pathlib import Path
from typing import NamedTuple

from tests.clean_venv import CleanVenv, our_wheel
from tests.docs.snippets import ROOT
from tests.ports import free_port

PAGE = "docs/write-an-auth-plugin.md"
PORT = "8080"

_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_FILE_NAME = re.compile(r"(?:# |<!-- )([\w./-]+\.\w+)(?: -->)?\n")


class Step(NamedTuple):
    """A block of the page: a file (`python`, `md`), commands (`sh`), or what they print (`text`)."""

    language: str
    code: str


def steps() -> list[Step]:
    return [Step(*found) for found in _BLOCK.findall((ROOT / PAGE).read_text(encoding="utf-8"))]


class Walk:
    """Somebody who follows the page in a shell, in a virtual environment with jimsapi in it."""

    def __init__(self, folder: Path) -> None:
        self.venv = CleanVenv(folder / "venv", "mypy", "pip", "pytest", "ruff", "setuptools")
        self.venv.install(our_wheel())
        self.folder = folder / "work"
        self.folder.mkdir()
        # pip finds everything here already, and downloads nothing. (Its variable for no isolation is "0" when set.)
        self.environment = self.venv.environment({"PIP_NO_INDEX": "1", "PIP_NO_BUILD_ISOLATION": "0"})
        self.port = str(free_port())
        self.printed = ""
        self.status = 0
        self.server: subprocess.Popen[str] | None = None

    def write(self, code: str) -> None:
        """Write a file, whose name is the first line."""
        named = _FILE_NAME.match(code)
        assert named is not None, f"this block does not begin with its file's name:\n{code}"
        self.folder.joinpath(named[1]).write_text(code[named.end() :].replace(PORT, self.port), encoding="utf-8")

    def run(self, code: str) -> None:
        """Run commands, in the folder where the last ones ended."""
        ended = self.venv.bin / "ended"
        ran = subprocess.run(
            ["bash", "-euc", f"trap 'pwd > {ended}' EXIT\n{code}"],
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
        """Start a server, and leave it to run. It binds its port first: who asks it then waits until it serves."""
        self.server = subprocess.Popen(
            ["bash", "-euc", f"exec {code} --metrics-port 0 --port {self.port}"],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.server.stderr is not None
        said = next((line for line in self.server.stderr if self.port in line), None)
        assert said is not None, "the server ended before it said where it serves"

    def compare(self, expected: str) -> None:
        """Fail unless the last commands printed these lines in this order; `…` stands for anything.

        After a test's name pytest gives the reason where the line has room for it, and always where `CI` is set.
        """
        lines = iter(self.printed.splitlines())
        for line in expected.splitlines():
            pattern = re.escape(line).replace("…", ".*") + ("( - .*)?" if line.startswith("FAILED ") else "")
            assert any(re.fullmatch(pattern, printed.rstrip()) for printed in lines), f"{line}\n\n{self.printed}"
        assert self.printed.count("FAILED ") == expected.count("FAILED "), self.printed


def test_who_follows_the_page_gets_what_it_says(tmp_path: Path) -> None:
    walk = Walk(tmp_path)
    page = steps()
    try:
        for step, following in zip(page, [*page[1:], Step("", "")], strict=True):
            match step.language:
                case "python" | "md":
                    walk.write(step.code)
                case "sh" if step.code.startswith("jimsapi --app"):
                    walk.serve(step.code.strip())
                case "sh":
                    walk.run(step.code)
                    may_fail = following.language == "text" and "FAILED " in following.code
                    assert walk.status == int(may_fail), f"{step.code}\n{walk.printed}"
                case "text":
                    walk.compare(step.code)
    finally:
        if walk.server is not None:
            walk.server.terminate()
            walk.server.communicate(timeout=30)


def test_the_page_is_made_of_files_commands_and_what_they_print() -> None:
    assert {step.language for step in steps()} == {"python", "md", "sh", "text"}


def test_the_other_pages_lead_to_it() -> None:
    assert "(write-an-auth-plugin.md)" in (ROOT / "docs" / "plugins.md").read_text(encoding="utf-8")
    assert f"({PAGE})" in (ROOT / "README.md").read_text(encoding="utf-8")
