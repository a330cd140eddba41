"""Byte strings that are kept: known attacks, and what fuzzing has found, as files that a person can read.

A file is Python's notation of bytes, without quotes, over as many lines as are handy: line ends of the file do not
count. Lines that begin with `#` describe the case.
"""

import ast
from pathlib import Path
from typing import NamedTuple

FOLDER = Path(__file__).with_name("cases")
_WIDTH = 110


class Case(NamedTuple):
    """A kept string."""

    name: str
    about: str
    data: bytes


def read(kind: str) -> list[Case]:
    """All cases of a kind, which is a folder, by name."""
    return [_read(path) for path in sorted((FOLDER / kind).glob("*.txt"))]


def write(case: Case, kind: str) -> Path:
    """Keep a case, and say where."""
    text = repr(case.data)[2:-1].replace('"', r"\x22").replace(r"\'", "'").replace("#", r"\x23")
    lines = text.replace(r"\r\n", "\\r\\n\n").splitlines()
    lines = [line[start : start + _WIDTH] for line in lines for start in range(0, len(line), _WIDTH)]
    path = FOLDER / kind / f"{case.name}.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([f"# {line}" for line in case.about.splitlines()] + lines) + "\n", encoding="ascii")
    return path


def _read(path: Path) -> Case:
    lines = path.read_text(encoding="ascii").splitlines()
    about = [line.removeprefix("#").strip() for line in lines if line.startswith("#")]
    text = "".join(line for line in lines if not line.startswith("#"))
    return Case(path.stem, " ".join(about), ast.literal_eval(f'b"{text}"'))
