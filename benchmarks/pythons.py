"""The Pythons of this machine that jimsapi runs on."""

import shutil
import subprocess
from functools import cache

VERSIONS = ("3.11", "3.12", "3.13", "3.14", "3.13t", "3.14t")
"""Those that are looked for; `t` is the free-threaded build."""
TELL_VERSION = """
import sys, sysconfig, venv, ensurepip
print("%d.%d" % sys.version_info[:2] + ("t" if sysconfig.get_config_var("Py_GIL_DISABLED") else ""))
"""


@cache
def found() -> dict[str, str]:
    """The paths of those that are there and can make virtual environments, by version, in the order of `VERSIONS`."""
    paths: dict[str, str] = {}
    for name in (*(f"python{version}" for version in VERSIONS), "python3", "/usr/bin/python3"):
        path = shutil.which(name)
        if path is None:
            continue
        # A version manager has names on the path of versions that are not installed, so each is run.
        told = subprocess.run([path, "-c", TELL_VERSION], capture_output=True, text=True)
        if told.returncode == 0:
            paths.setdefault(told.stdout.strip(), path)
    return {version: paths[version] for version in VERSIONS if version in paths}
