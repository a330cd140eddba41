"""The versions of Python on this machine that can make virtual environments."""

import shutil
import subprocess
import sys

SUPPORTED = ("3.11", "3.12", "3.13", "3.14")

_VERSION = "import ensurepip, sys, venv; print('{}.{}'.format(*sys.version_info))"


def find_pythons() -> dict[str, str]:
    """Return the path of each supported Python that is found, by version."""
    found: dict[str, str] = {}
    for name in (*(f"python{version}" for version in SUPPORTED), "python3", "/usr/bin/python3", sys.executable):
        path = shutil.which(name)
        version = path and _version(path)
        if path and version in SUPPORTED:
            found.setdefault(version, path)
    return dict(sorted(found.items(), key=lambda item: SUPPORTED.index(item[0])))


def _version(path: str) -> str | None:
    # A version manager may have a program for a version that is not installed, so each one is run.
    ran = subprocess.run([path, "-c", _VERSION], capture_output=True, text=True, check=False)
    return ran.stdout.strip() if ran.returncode == 0 else None
