"""The tools that check the files of `deploy/`, run to their ends."""

import subprocess
from pathlib import Path

from tests.deploy.proxies import program


def run_tool(name: str, *arguments: str | Path) -> str:
    """Run a tool and return what it prints. Raises `AssertionError` with all that it says if it finds a fault.

    What it writes to standard error is a fault, too: systemd-analyze does not fail for a name that it does not know.
    """
    command = [program(name), *map(str, arguments)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (ran.returncode, ran.stderr) == (0, ""), f"{name}: {ran.stdout}{ran.stderr}"
    return ran.stdout
