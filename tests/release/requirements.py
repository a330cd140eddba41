"""Prints what the builds of all distributions require: `python -m tests.release.requirements`.

The builds of a release do not download these again each time. Any Python since 3.11 runs this file.
"""

import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def build_requirements(root: Path = ROOT) -> list[str]:
    """Return the requirements of every build backend, each once."""
    found: set[str] = set()
    for path in (root / "pyproject.toml", *root.glob("plugins/*/pyproject.toml")):
        found.update(tomllib.loads(path.read_text(encoding="utf-8"))["build-system"]["requires"])
    return sorted(found)


if __name__ == "__main__":
    print("\n".join(build_requirements()))
