"""Finds a Python that jims-core runs on, 3.12 or newer, that can make virtual environments, and prints its path.

`JIMSAPI_JIMS_PYTHON` names one. Else python3.14, python3.13, python3.12 and python3 on the path are tried, and then
/usr/bin/python3. Without one it says what to install, and exits with 1. Any Python 3 runs this file.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping

VARIABLE = "JIMSAPI_JIMS_PYTHON"
NAMES = ("python3.14", "python3.13", "python3.12", "python3", "/usr/bin/python3")

_FITS = "import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 12))"


def find_python(environ: Mapping[str, str]) -> str:
    """The path of a fitting Python. Raises `LookupError` that says what to do if there is none."""
    named = environ.get(VARIABLE)
    for name in [named] if named else NAMES:
        path = shutil.which(name, path=environ.get("PATH"))
        if path is not None and _fits(path):
            return path
    if named:
        raise LookupError(f"{VARIABLE} names {named}, which is no Python >= 3.12 with venv and ensurepip: name another")
    raise LookupError(
        "the tests of JIMS apps need Python >= 3.12 with venv, and there is none: install one (Debian 13: apt-get "
        f"install python3 python3-venv), or set {VARIABLE} to its path"
    )


def _fits(path: str) -> bool:
    # A version manager's shim is on the path for versions that are not installed, so each is run.
    return subprocess.run([path, "-c", _FITS], capture_output=True, check=False).returncode == 0


if __name__ == "__main__":
    try:
        print(find_python(os.environ))
    except LookupError as error:
        sys.exit(str(error))
