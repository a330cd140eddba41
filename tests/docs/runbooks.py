"""The page of runbooks as the tests read it: its sections, and what their tables quote."""

import os
import re
import shlex
import subprocess
import sys
from functools import lru_cache
from pathlib import Path
from typing import Self

import httpx

from tests.command import python_path
from tests.docs.snippets import ROOT
from tests.monitoring.observed import Observed

PAGE = "docs/runbooks.md"
_HEADING = re.compile(r"^(#{2,3}) (.+)$", re.MULTILINE)
_ROW = re.compile(r"^\| ([^|]+?) \| (.+) \|$", re.MULTILINE)
_BLOCK = re.compile(r"^ *```(\w+)\n(.*?)^ *```$", re.DOTALL | re.MULTILINE)
_CODE = re.compile(r"`([^`]+)`")


@lru_cache
def anchors() -> dict[str, str]:
    """The text of each section, with its subsections, by the anchor of its heading."""
    text = (ROOT / PAGE).read_text(encoding="utf-8")
    found = list(_HEADING.finditer(text))
    sections = {}
    for position, heading in enumerate(found):
        following = (later for later in found[position + 1 :] if len(later[1]) <= len(heading[1]))
        end = next((later.start() for later in following), len(text))
        sections[heading[2].lower().replace(" ", "-")] = text[heading.end() : end]
    return sections


class Runbook:
    """One section of the page."""

    def __init__(self, anchor: str) -> None:
        self.anchor = anchor
        self._text = anchors()[anchor]
        self._rows = dict(_ROW.findall(self._text))

    def quoted(self, where: str) -> str:
        """What the row `where` of a table quotes first: a log line, an answer, an expression or an alert."""
        found = _CODE.search(self._rows[where])
        assert found is not None
        return found[1]

    def alerts(self) -> list[str]:
        """The alerts that the section names."""
        return sorted(set(re.findall(r"`(Jimsapi\w+)`", self._text)))

    def blocks(self, language: str) -> list[str]:
        """The code blocks in a language, in order, without their indentation."""
        return [
            "".join(line.strip() + "\n" for line in code.splitlines())
            for found, code in _BLOCK.findall(self._text)
            if found == language
        ]


def quotes(quoted: str, text: str) -> bool:
    """Whether a text is what the page quotes: `…` stands for any text within a line."""
    return re.fullmatch(_pattern(quoted), text) is not None


def logs(quoted: str, log: str) -> bool:
    """Whether a log has a line that the page quotes. Before an entry is its time, and after it may be fields."""
    entry = re.compile(rf"(?:\S+Z )?{_pattern(quoted)}(?: \w+=\S+)*")
    return any(entry.fullmatch(line) for line in log.splitlines())


def _pattern(quoted: str) -> str:
    return ".+".join(re.escape(part) for part in quoted.split("…"))


def shown(answer: httpx.Response) -> str:
    """An answer as the page quotes it."""
    return f"{answer.status_code} {answer.text}"


class Operator:
    """Runs commands of the page in a shell, in which its names stand for one server. `names` are further ones.

    The page's own definitions are for systemd. Here `log` reads the file that the server writes its log to.
    """

    def __init__(self, url: str, metrics_url: str, pid: int, log_file: Path, folder: Path, **names: object) -> None:
        self._folder = folder
        values = {"URL": url, "METRICS": metrics_url, "PID": pid, **names}
        programs = {"jimsapi": f"{sys.executable} -m jimsapi", "log": f"cat {log_file}"}
        self._beginning = "".join(
            [f"{name}={shlex.quote(str(value))}\n" for name, value in values.items()]
            + [f'{name}() {{ {command} "$@"; }}\n' for name, command in programs.items()]
        )

    @classmethod
    def of(cls, served: Observed, folder: Path, **names: object) -> Self:
        """An operator of a server that a test has started."""
        return cls(served.url, served.metrics_url, served.pid, served.log_file, folder, **names)

    def run(self, commands: str) -> str:
        """Run a block of commands, and return what they print. Fails if one fails."""
        clean = {name: value for name, value in os.environ.items() if not name.startswith("JIMS_")}
        ran = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", self._beginning + commands],
            cwd=self._folder,
            env={**clean, "PYTHONPATH": python_path(self._folder), "no_proxy": "*"},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert ran.returncode == 0, (commands, ran.stdout, ran.stderr)
        return ran.stdout
