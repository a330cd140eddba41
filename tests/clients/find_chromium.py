"""Finds a Chromium for the tests that open a page, and prints its path.

`JIMSAPI_CHROMIUM` names one. Else the names that distributions give it are looked for on the path. Without one it says
what to install, and exits with 1. Any Python 3 runs this file.
"""

import os
import shutil
import sys
from collections.abc import Mapping

VARIABLE = "JIMSAPI_CHROMIUM"
NAMES = ("chromium", "chromium-headless-shell", "chromium-browser", "google-chrome")


def find_chromium(environ: Mapping[str, str]) -> str:
    """The path of Chromium, or of Chrome. Raises `LookupError` that says what to do if there is none."""
    named = environ.get(VARIABLE)
    for name in [named] if named else NAMES:
        path = shutil.which(name, path=environ.get("PATH"))
        if path is not None:
            return path
    if named:
        raise LookupError(f"{VARIABLE} names {named}, which is no program: name another")
    raise LookupError(
        "the tests of pages need Chromium or Chrome, and there is none: install one (Debian: apt-get install "
        f"chromium-headless-shell), or set {VARIABLE} to its path"
    )


if __name__ == "__main__":
    try:
        print(find_chromium(os.environ))
    except LookupError as error:
        sys.exit(str(error))
