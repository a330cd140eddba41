"""The tools that check the files of `deploy/`, run to their ends."""

import subprocess
from pathlib import Path

from tests.deploy.proxies import program


def run_tool(name: str, *arguments: str | Path, cwd: Path | None = None) -> str:
    """Run a tool and return what it prints. Raises `AssertionError` with all that it says if it finds a fault."""
    ran = subprocess.run(
        [program(name), *map(str, arguments)], cwd=cwd, capture_output=True, text=True, timeout=60, check=False
    )
    assert ran.returncode == 0, f"{name}: {ran.stdout}{ran.stderr}"
    return ran.stdout
