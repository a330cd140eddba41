"""The lock files of `requirements/`: `python -m tests.hostile.lock` writes them anew, with the newest versions.

A line is `name==version` with the hashes of the wheels for CPython 3.11, 3.12 and 3.13 on Linux (x86-64). pip resolves;
where it does so is not written down.
"""

import json
import subprocess
import sys
import tempfile
from collections import defaultdict
from configparser import ConfigParser
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.serving import ROOT

FOLDER = ROOT / "requirements"
PYTHONS = ("3.11", "3.12", "3.13")

Locked = dict[str, tuple[str, list[str]]]
"""Version and hashes by canonical name."""


def requirements(lock: str) -> list[Requirement]:
    """What setup.cfg asks for: of the package ("core"), or of that, its tests and its examples ("test")."""
    config = ConfigParser()
    config.read(ROOT / "setup.cfg")
    lines = config["options"]["install_requires"].split("\n")
    if lock == "test":
        for extra in ("test", "examples", "agents"):
            lines += config["options.extras_require"][extra].split("\n")
    return [Requirement(line) for line in lines if line.strip()]


def read(lock: str) -> Locked:
    """What a lock file holds. Raises `ValueError` for a line of another form."""
    locked: Locked = {}
    for line in (FOLDER / f"{lock}.lock").read_text(encoding="utf-8").splitlines():
        if line.startswith("#"):
            continue
        name, _, rest = line.partition("==")
        version, *hashes = rest.split(" --hash=")
        if not version or not hashes:
            raise ValueError(f"{lock}.lock has no version or no hash in {line!r}")
        locked[name] = version, hashes
    return locked


def write(lock: str) -> None:
    """Resolve and write a lock file. Raises `CalledProcessError` if pip cannot."""
    versions: dict[str, set[str]] = defaultdict(set)
    hashes: dict[str, set[str]] = defaultdict(set)
    for python in PYTHONS:
        for item in _resolve([str(requirement) for requirement in requirements(lock)], python):
            name = canonicalize_name(item["metadata"]["name"])
            versions[name].add(item["metadata"]["version"])
            hashes[name].add(item["download_info"]["archive_info"]["hash"].replace("=", ":"))
    unlike = [name for name, found in versions.items() if len(found) > 1]
    if unlike:
        raise SystemExit(f"{lock}: these have other versions on another Python, which a lock cannot hold: {unlike}")
    lines = [
        " ".join([f"{name}=={min(versions[name])}", *(f"--hash={one}" for one in sorted(hashes[name]))])
        for name in sorted(versions)
    ]
    head = "# Written by `python -m tests.hostile.lock`; `make audit` looks these versions up."
    (FOLDER / f"{lock}.lock").write_text("\n".join([head, *lines, ""]), encoding="utf-8")


def _resolve(wanted: list[str], python: str) -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed"]
        command += ["--only-binary", ":all:", "--target", folder, "--python-version", python, "--report", str(report)]
        subprocess.run([*command, *wanted], check=True)
        found: list[dict[str, Any]] = json.loads(report.read_text())["install"]
        return found


if __name__ == "__main__":
    for each in ("core", "test"):
        write(each)
