"""pytest in processes that tests start."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.clean_venv import CleanVenv


@pytest.mark.parametrize("in_clean_venv", [False, True])
def test_pytest_in_a_process_makes_its_folders_below_those_of_this_session(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, in_clean_venv: bool
) -> None:
    (tmp_path / "test_it.py").write_text("def test_it(tmp_path): print(tmp_path)\n", encoding="utf-8")
    command = ["pytest", "-q", "-s", "-p", "no:cacheprovider"]
    if in_clean_venv:
        ran = CleanVenv(tmp_path / "venv", "pytest").run(*command, cwd=tmp_path)
    else:
        ran = subprocess.run(
            [sys.executable, "-m", *command], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
        )
    assert ran.returncode == 0, ran.stdout
    assert ran.stdout.startswith(str(tmp_path_factory.getbasetemp()))
