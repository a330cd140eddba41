"""The checklist of a release: `python -m tests.release`, which `make release-check` runs in an environment of its own.

It builds the sdist and the wheel of every distribution twice, and prints one row for each check. The exit status is 0
if all checks passed, and 1 if one failed. The files to publish are in `build/release`.
"""

import shutil
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

from tests.release import checks
from tests.release.build import build
from tests.release.projects import ROOT, Project, needed_projects
from tests.release.pythons import SUPPORTED, find_pythons
from tests.release.source import copy_source

TARGET = ROOT / "build" / "release"


class Checklist:
    """Prints the rows, and counts them."""

    def __init__(self) -> None:
        self.passed = 0
        self.failed = 0

    def check(self, name: str, subject: str, action: Callable[[], str]) -> bool:
        """Print the row of a check. Returns whether the check passed. Every error of `action` makes it a failed one."""
        try:
            passed, detail = True, action()
        except Exception as error:
            passed, detail = False, str(error) or type(error).__name__
        self.passed += passed
        self.failed += not passed
        print(f"{'ok' if passed else 'FAILED':8}{name:14}{subject:20}{detail}", flush=True)
        return passed


class Release:
    """The files of a release and their checks.

    `root` is the repository, `work` a folder for temporary files, and `target` where the files to publish go.
    """

    def __init__(self, rows: Checklist, root: Path, work: Path, target: Path) -> None:
        self._rows = rows
        self._root = root
        self._work = work
        self._target = target
        self._copies: list[list[Project]] = []
        self._files: dict[str, list[Path]] = {}

    def check(self) -> None:
        """Run all checks. If the source cannot be copied, there is nothing else to check."""
        self._rows.check("commit", "", partial(checks.check_commit, self._root))
        if not all(self._rows.check("source", name, partial(self._copy, name)) for name in ("first", "second")):
            return
        projects, again = self._copies
        self._rows.check("version", "", partial(checks.check_versions, projects, self._root))
        for project, copied in zip(projects, again, strict=True):
            self._build_twice(project, copied)
        self._rows.check("pythons", "", self._pythons)
        for version, python in find_pythons().items():
            for project in projects:
                if project.pythons.contains(version):
                    self._rows.check(f"install {version}", project.name, partial(self._install, project, python))
        self._rows.check("licences", "", self._licences)
        sbom = self._target / f"jimsapi-{projects[0].version}.cdx.json"
        self._rows.check("sbom", "", partial(checks.check_sbom, projects[0], sbom))

    def _copy(self, name: str) -> str:
        self._copies.append(copy_source(self._root, self._work / name))
        return f"{len(self._copies[-1])} distributions; every link of a README is absolute"

    def _build_twice(self, project: Project, copied: Project) -> None:
        """Build a distribution from two copies of the source, with other permissions, and check what was built."""
        check = self._rows.check
        if not check("build", project.name, partial(self._build, project)):
            return
        sdist, wheel = self._files[project.name]
        check("same bytes", project.name, partial(self._build_again, copied))
        check("contents", project.name, partial(checks.check_contents, project, sdist, wheel))
        check("description", project.name, partial(checks.check_description, [sdist, wheel]))

    def _build(self, project: Project) -> str:
        built = build(project, self._work / "built", self._epoch())
        self._files[project.name] = [Path(shutil.copy2(file, self._target)) for file in built]
        return ", ".join(file.name for file in built)

    def _build_again(self, copied: Project) -> str:
        built = build(copied, self._work / "rebuilt", self._epoch(), umask=0o077)
        return checks.check_equal(self._files[copied.name], built)

    def _epoch(self) -> int:
        _, date = checks.changelog(self._root)
        return checks.epoch(date)

    def _pythons(self) -> str:
        found = find_pythons()
        missing = [version for version in SUPPORTED if version not in found]
        if not found:
            raise checks.CheckFailed(f"none of {', '.join(missing)} is on this machine with venv and ensurepip")
        return ", ".join(found) + (f"; not on this machine: {', '.join(missing)}" if missing else "")

    def _install(self, project: Project, python: str) -> str:
        """Install the wheel of a project, and those of the projects that it requires."""
        needed = needed_projects(project, self._copies[0])
        folder = self._work / "environment"
        try:
            return checks.check_install(project, python, folder, self._wheels(needed))
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _licences(self) -> str:
        """Install all wheels together on the newest Python, and list the licences of what is there."""
        *_, (version, python) = find_pythons().items()
        fitting = [project for project in self._copies[0] if project.pythons.contains(version)]
        installed = checks.make_environment(python, self._work / "all", self._wheels(fitting))
        return checks.check_licences(installed, self._target / "licences.md")

    def _wheels(self, projects: list[Project]) -> list[Path]:
        missing = [project.name for project in projects if project.name not in self._files]
        if missing:
            raise checks.CheckFailed(f"there is no wheel of {', '.join(missing)}")
        return [self._files[project.name][1] for project in projects]


def main() -> int:
    """The command. Returns its exit status."""
    shutil.rmtree(TARGET, ignore_errors=True)
    TARGET.mkdir(parents=True)
    rows = Checklist()
    with tempfile.TemporaryDirectory(prefix="jimsapi-release-") as work:
        Release(rows, ROOT, Path(work), TARGET).check()
    print(f"{rows.passed} passed, {rows.failed} failed; the files are in {TARGET.relative_to(ROOT)}")
    return 1 if rows.failed else 0


if __name__ == "__main__":
    sys.exit(main())
