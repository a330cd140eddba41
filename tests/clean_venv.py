"""A virtual environment that has nothing but what it is told, and wheels as pip builds them. Nothing is downloaded."""

import atexit
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import venv
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]

FOLDERS_OF_PYTEST = "PYTEST_DEBUG_TEMPROOT"
"""The variable that says where pytest makes its temporary folders."""

_PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
_OFFLINE = ["--no-index", "--no-deps", "--quiet"]
_SCRIPT = """#!{python}
import sys
from {module} import {name}
sys.exit({name}())
"""


class CleanVenv:
    """A virtual environment in `folder`, with the distributions `needed` and what those need.

    They are links to what is installed here, without its editable installs; `install` adds wheels, by pip.
    """

    def __init__(self, folder: Path, *needed: str) -> None:
        venv.create(folder, symlinks=True, with_pip=False)
        self.bin = folder / "bin"
        self.python = self.bin / "python"
        paths = sysconfig.get_path("purelib", "venv", {"base": str(folder), "platbase": str(folder)})
        self.site = Path(paths)
        for distribution in with_needed("jimsapi", *needed):
            if distribution.metadata["Name"] != "jimsapi":
                self._link(distribution)

    def _link(self, distribution: importlib.metadata.Distribution) -> None:
        tops = {Path(str(file)).parts[0] for file in distribution.files or ()} - {"..", "__pycache__"}
        for top in tops:
            (self.site / top).symlink_to(str(distribution.locate_file(top)))
        points = distribution.entry_points.select(group="console_scripts")
        for point in points:
            script = self.bin / point.name
            script.write_text(_SCRIPT.format(python=self.python, module=point.module, name=point.attr))
            script.chmod(0o755)
        for file in distribution.files or ():  # programs that are no Python, as ruff is
            if file.parts[0] == ".." and file.parent.name == "bin" and file.name not in points.names:
                (self.bin / file.name).symlink_to(str(distribution.locate_file(file)))

    def install(self, *wheels: Path) -> None:
        """Have pip install wheels, and nothing that they need."""
        self.pip("install", *_OFFLINE, *map(str, wheels))

    def pip(self, *arguments: str) -> None:
        """Run this environment's pip, which is that of the running Python."""
        subprocess.run([*_PIP, "--python", str(self.python), *arguments], check=True, timeout=120)

    def environment(self, env: Mapping[str, str] | None = None) -> dict[str, str]:
        """The variables of a process that lives in it, with none of ours that would reach in from outside."""
        clean = {
            name: value
            for name, value in os.environ.items()
            if name == FOLDERS_OF_PYTEST or not name.startswith(("JIMS_", "PYTHON", "PYTEST"))
        }
        return {**clean, "PATH": os.pathsep.join([str(self.bin), os.environ["PATH"]]), **(env or {})}

    def run(
        self, *command: str, cwd: Path, env: Mapping[str, str] | None = None, timeout: float = 120
    ) -> subprocess.CompletedProcess[str]:
        """Run a command of it to its end."""
        return subprocess.run(
            command,
            cwd=cwd,
            env=self.environment(env),
            executable=shutil.which(command[0], path=str(self.bin)),
            capture_output=True,
            stdin=subprocess.DEVNULL,
            text=True,
            timeout=timeout,
            check=False,
        )


def with_needed(*names: str) -> Iterator[importlib.metadata.Distribution]:
    """Installed distributions and, each once, what they need."""
    waiting, seen = [Requirement(name) for name in names], set[str]()
    while waiting:
        requirement = waiting.pop()
        key = re.sub(r"[-_.]+", "-", requirement.name).lower()
        if key in seen:
            continue
        seen.add(key)
        distribution = importlib.metadata.distribution(requirement.name)
        yield distribution
        needs = map(Requirement, distribution.requires or ())
        waiting += [one for one in needs if one.marker is None or one.marker.evaluate({"extra": ""})]


def build_wheels(target: Path, *projects: Path) -> list[Path]:
    """Have pip build a wheel of each project folder, with the setuptools that is installed here."""
    subprocess.run(
        [*_PIP, "wheel", *_OFFLINE, "--no-build-isolation", "--wheel-dir", str(target), *map(str, projects)],
        check=True,
        timeout=120,
    )
    return sorted(target.glob("*.whl"))


@cache
def our_wheel() -> Path:
    """The wheel of jimsapi as it stands here, built once a session, from a copy: a build leaves files in its folder."""
    folder = Path(tempfile.mkdtemp(prefix="jimsapi-wheel-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    source = folder / "source"
    source.mkdir()
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE", "jimsapi_pytest.py"):
        shutil.copy(ROOT / name, source)
    shutil.copytree(ROOT / "jimsapi", source / "jimsapi", ignore=shutil.ignore_patterns("__pycache__"))
    [wheel] = build_wheels(folder / "wheels", source)
    return wheel
