"""Python environments, one for each system that is compared and one for the harness, made once and kept in
`.benchmarks/` at the root."""

import importlib.util
import json
import os
import subprocess
from functools import cache
from pathlib import Path
from types import ModuleType

from benchmarks import pythons

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / ".benchmarks"

HARNESS, OURS, OURS_WITH_PLUGINS = "harness", "ours", "ours-with-plugins"
JIMS_API, JIMS_API_TUNED = "jims-api", "jims-api-tuned"
OURS_WITH_ALL, OURS_ON = "ours-with-all-plugins", "ours-on-python-"
"""`OURS_ON` is followed by a version of Python, as `benchmarks.pythons` has it."""
SERVER = ("uvicorn >= 0.54", "httptools >= 0.9", "uvloop >= 0.23")
JSON = ("orjson >= 3.13", "msgspec >= 0.22")
PLUGINS = tuple(f"plugins/jimsapi-{name}" for name in ("jims", "postgres", "authentik", "oidc"))
PLUGINS_OF_HARNESS = PLUGINS[1:]
ALL_PLUGINS = tuple(sorted(f"plugins/{found.parent.name}" for found in ROOT.glob("plugins/*/setup.cfg")))
"""Every plugin of this repository."""
REQUIREMENTS = {
    # Its plugins bring PostgreSQL, and stand-ins for Authentik and an issuer, with their tests.
    HARNESS: ("--editable .", *(f"--editable {plugin}[test]" for plugin in PLUGINS_OF_HARNESS), "matplotlib", "simpy"),
    OURS: ("--editable .[forms]", "granian", "hypercorn"),
    OURS_WITH_PLUGINS: ("--editable .", *(f"--editable {plugin}" for plugin in PLUGINS)),
    OURS_WITH_ALL: ("--editable .", *(f"--editable {plugin}" for plugin in ALL_PLUGINS)),
    **{f"{OURS_ON}{version}": ("--editable .",) for version in pythons.VERSIONS},
    JIMS_API: ("jims-api==0.6.2", "asyncpg", "aiosqlite"),
    JIMS_API_TUNED: ("jims-api==0.6.2", "asyncpg", "aiosqlite", *SERVER[1:]),
    # The newest that there are, and none older than those for which the apps were written.
    "raw": (*SERVER, JSON[0]),
    "starlette": (*SERVER, "starlette >= 1.10", *JSON),
    "fastapi": (*SERVER, "fastapi >= 0.165"),
    "litestar": (*SERVER, "litestar >= 2.25"),
    "blacksheep": (*SERVER, "blacksheep >= 2.6.4", *JSON),
    "falcon": (*SERVER, "falcon >= 4.4", *JSON),
}

AS_INSTALLED = ("--config-settings", "editable_mode=compat")
"""Has Python find editable packages on its path, as installed ones. By default, each adds a finder of its own, which
every import asks first."""


@cache
def python_of(name: str) -> str:
    """The path of the Python of an environment, which is made if it is not there.

    Raises `SystemExit` if there is no Python that jims-core runs on, and `CalledProcessError` if pip fails.
    """
    folder = FOLDER / name
    python, installed = folder / "bin" / "python", folder / "installed"
    wanted = "\n".join((*AS_INSTALLED, *REQUIREMENTS[name]))
    if not installed.exists() or installed.read_text() != wanted:
        base = _base_of(name)
        print(f"making {folder}", flush=True)
        FOLDER.mkdir(exist_ok=True)
        (FOLDER / ".gitignore").write_text("*\n")
        subprocess.run([base, "-m", "venv", "--clear", str(folder)], check=True)
        pip = [str(python), "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
        subprocess.run([*pip, *wanted.replace("--editable ", "--editable\n").split("\n")], cwd=ROOT, check=True)
        installed.write_text(wanted)
    return str(python)


def _base_of(name: str) -> str:
    """The path of the Python that makes an environment. Raises `SystemExit` if there is none."""
    if name.startswith(OURS_ON):
        return pythons.found()[name.removeprefix(OURS_ON)]
    try:
        return str(of_tests("jimsapi-jims", "find_python").find_python(os.environ))
    except LookupError as error:
        raise SystemExit(str(error)) from None


def versions(name: str) -> dict[str, str]:
    """What is installed in an environment: versions by distribution, and that of Python."""
    pip = [python_of(name), "-m", "pip", "--disable-pip-version-check", "list", "--format=json"]
    listed = json.loads(subprocess.run(pip, check=True, capture_output=True, text=True).stdout)
    python = subprocess.run([python_of(name), "--version"], check=True, capture_output=True, text=True).stdout
    return {"Python": python.split()[1], **{each["name"]: each["version"] for each in listed}}


def of_tests(plugin: str, name: str) -> ModuleType:
    """A module of a plugin's tests, which are no package."""
    path = ROOT / "plugins" / plugin / "tests" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
