"""The search for a Python that can run these tests."""

import sys
from pathlib import Path

import pytest
from find_python import VARIABLE, find_python


def python_that_exits(folder: Path, name: str, status: int) -> None:
    script = folder / name
    script.write_text(f"#!/bin/sh\nexit {status}\n")
    script.chmod(0o755)


def test_a_shim_without_its_python_is_passed_over(tmp_path: Path) -> None:
    python_that_exits(tmp_path, "python3.13", 127)
    python_that_exits(tmp_path, "python3.12", 0)
    assert find_python({"PATH": str(tmp_path)}) == str(tmp_path / "python3.12")


def test_the_one_that_is_named_is_taken_alone(tmp_path: Path) -> None:
    python_that_exits(tmp_path, "python3.13", 0)
    assert find_python({"PATH": str(tmp_path), VARIABLE: sys.executable}) == sys.executable
    with pytest.raises(LookupError, match=f"{VARIABLE} names python3.11"):
        find_python({"PATH": str(tmp_path), VARIABLE: "python3.11"})
