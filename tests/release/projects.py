"""The distributions of this repository: jimsapi and every folder of `plugins/` that has a `setup.cfg`."""

from configparser import ConfigParser
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Project:
    """A distribution, as its `setup.cfg` declares it."""

    folder: Path
    metadata: dict[str, str]
    options: dict[str, str]
    extras: dict[str, list[Requirement]]

    @property
    def name(self) -> str:
        return self.metadata["name"]

    @property
    def version(self) -> str:
        return self.metadata["version"]

    @property
    def pythons(self) -> SpecifierSet:
        """The versions of Python that it supports."""
        return SpecifierSet(self.options["python_requires"])

    @property
    def requirements(self) -> list[Requirement]:
        return _requirements(self.options.get("install_requires", ""))

    @property
    def urls(self) -> dict[str, str]:
        """The addresses that the package index shows, by label."""
        pairs = (line.partition(" = ") for line in self.metadata.get("project_urls", "").split("\n") if line)
        return {label: url for label, _, url in pairs}


def read_projects(root: Path = ROOT) -> list[Project]:
    """Return jimsapi and its plugins in the order of their folders."""
    return [_read(path.parent) for path in [root / "setup.cfg", *sorted(root.glob("plugins/*/setup.cfg"))]]


def needed_projects(project: Project, projects: list[Project]) -> list[Project]:
    """Return a project, and those of `projects` that it requires, directly or not."""
    by_name = {canonicalize_name(one.name): one for one in projects}
    needed = {canonicalize_name(project.name): project}
    waiting = [project]
    while waiting:
        for requirement in waiting.pop().requirements:
            name = canonicalize_name(requirement.name)
            if name in by_name and name not in needed:
                needed[name] = by_name[name]
                waiting.append(by_name[name])
    return list(needed.values())


def _read(folder: Path) -> Project:
    config = ConfigParser(interpolation=None)
    config.optionxform = str  # type: ignore[assignment,method-assign] # the way that configparser documents
    config.read(folder / "setup.cfg", encoding="utf-8")
    extras = config["options.extras_require"] if config.has_section("options.extras_require") else {}
    return Project(
        folder,
        dict(config["metadata"]),
        dict(config["options"]),
        {name: _requirements(lines) for name, lines in extras.items()},
    )


def _requirements(lines: str) -> list[Requirement]:
    return [Requirement(line) for line in lines.split("\n") if line]
