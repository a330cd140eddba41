"""The checks of a release. Each returns what a reader of its row wants to know, and raises an error if it fails."""

import email
import json
import re
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Sequence
from datetime import UTC, datetime
from email.message import Message
from pathlib import Path

from packaging.utils import canonicalize_name

from tests.hostile.lock import FOLDER as LOCKS
from tests.hostile.lock import read as read_lock
from tests.release.build import EARLIEST
from tests.release.projects import ROOT, Project
from tests.release.source import relative_links

SMOKE = Path(__file__).with_name("smoke.py")

# The licences of what is installed with jimsapi and its plugins. Users may use all of these in a service of their own.
ALLOWED = re.compile(
    r"MIT|BSD|Apache|ISC|CNRI-Python|MPL|Mozilla|PSF|Python Software Foundation|Unlicense|Zlib|Public Domain|CC0"
)
REFUSED = re.compile(r"GPL|Affero|GNU|SSPL|Server Side|Business Source|Commons Clause|Proprietary", re.IGNORECASE)

UNDECLARED = frozenset({"jims-core"})
"""Packages whose metadata names no licence. Only `jimsapi-jims` requires jims-core, for apps that need it anyway."""

_HEADING = re.compile(r"^## (\S+), (unreleased|\d{4}-\d\d-\d\d)$", re.MULTILINE)


class CheckFailed(Exception):
    """A check failed. The text says what is wrong."""


def changelog(root: Path = ROOT) -> tuple[str, str]:
    """Return the newest version of the changelog, and its date or `unreleased`."""
    heading = _HEADING.search((root / "CHANGELOG.md").read_text(encoding="utf-8"))
    if heading is None:
        raise CheckFailed("CHANGELOG.md has no heading such as `## 1.2.3, 2026-01-31` or `## 1.2.3, unreleased`")
    return heading[1], heading[2]


def epoch(date: str) -> int:
    """Return the time that all files of a release get: the date of the changelog."""
    if date == "unreleased":
        return EARLIEST
    return int(datetime.fromisoformat(date).replace(tzinfo=UTC).timestamp())


def check_versions(projects: Sequence[Project], root: Path = ROOT) -> str:
    """The changelog and all distributions have the same version."""
    version, date = changelog(root)
    other = [f"{project.name} {project.version}" for project in projects if project.version != version]
    if other:
        raise CheckFailed(f"the newest version of CHANGELOG.md is {version}, and not that of {', '.join(other)}")
    return f"{version}, {date}"


def check_equal(first: Sequence[Path], second: Sequence[Path]) -> str:
    """Two builds made the same files."""
    for one, other in zip(first, second, strict=True):
        if (one.name, one.read_bytes()) != (other.name, other.read_bytes()):
            raise CheckFailed(f"{one.name}: a second build has other bytes{_first_difference(one, other)}")
    return ", ".join(f"{file.name} {file.stat().st_size:,} bytes" for file in first)


def _first_difference(one: Path, other: Path) -> str:
    if one.suffix != ".whl":
        return ""
    with zipfile.ZipFile(one) as first, zipfile.ZipFile(other) as second:
        if first.namelist() != second.namelist():
            return ": the lists of files differ"
        for name in first.namelist():
            if first.read(name) != second.read(name):
                return f", first in {name}"
    return ": times or permissions differ"


def check_contents(project: Project, sdist: Path, wheel: Path) -> str:
    """The sdist and the wheel have the licence, and the description has addresses and absolute links."""
    licence = (ROOT / "LICENSE").read_bytes()
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        metadata = email.message_from_bytes(archive.read(next(name for name in names if name.endswith("/METADATA"))))
        if licence not in [archive.read(name) for name in names if name.endswith(".dist-info/licenses/LICENSE")]:
            raise CheckFailed(f"{wheel.name} does not have the licence of the repository")
    with tarfile.open(sdist) as tar:
        root = sdist.name.removesuffix(".tar.gz")
        file = tar.extractfile(f"{root}/LICENSE") if f"{root}/LICENSE" in tar.getnames() else None
        if file is None or file.read() != licence:
            raise CheckFailed(f"{sdist.name} does not have the licence of the repository")
    _check_metadata(project, metadata)
    return f"{len(names)} files in the wheel"


def _check_metadata(project: Project, metadata: Message) -> None:
    urls = dict(line.split(", ", 1) for line in metadata.get_all("Project-URL", []))
    if urls != project.urls or not urls:
        raise CheckFailed("the wheel does not have the addresses of setup.cfg")
    licence = metadata["License-Expression"] or metadata["License"]
    if licence != project.metadata["license"]:
        raise CheckFailed(f"the licence of the wheel is {licence}")
    relative = relative_links(str(metadata.get_payload()))
    if relative:
        raise CheckFailed(f"the description has relative links: {', '.join(relative)}")


def check_description(files: Sequence[Path]) -> str:
    """Package indexes can show the description."""
    _run([sys.executable, "-m", "twine", "check", "--strict", *map(str, files)])
    return "twine check --strict"


def make_environment(python: str, folder: Path, wheels: Sequence[Path]) -> Path:
    """Install wheels, and what they require, in a new virtual environment. Returns its Python."""
    _run([python, "-m", "venv", str(folder)])
    installed = folder / "bin" / "python"
    _run([str(installed), "-I", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *map(str, wheels)])
    return installed


def check_install(project: Project, python: str, folder: Path, wheels: Sequence[Path]) -> str:
    """A wheel can be installed in a clean environment, and works there."""
    installed = make_environment(python, folder, wheels)
    _run([str(installed), "-I", "-m", "pip", "check", "--disable-pip-version-check"])
    _run([str(installed), "-I", str(SMOKE), project.name], cwd=folder)
    return "installed; imported; a chat was answered"


def check_commit(root: Path) -> str:
    """Nothing is changed since the newest commit, which is what is built."""
    if changed := _run(["git", "status", "--porcelain"], cwd=root).split("\n")[:-1]:
        raise CheckFailed(f"not committed: {', '.join(line[3:] for line in changed[:5])}")
    return _run(["git", "rev-parse", "HEAD"], cwd=root).strip()


def is_allowed(licence: str) -> bool:
    """Return whether a licence, or each or one of several that `AND` or `OR` joins, is one that users may take."""
    licence = licence.partition("\n")[0]  # some packages have the whole text in their metadata
    choices = [licence] if "(" in licence else re.split(r"\bOR\b", licence)  # a list of others is not read further
    return any(
        all(ALLOWED.search(part) for part in re.split(r"\b(?:AND|and)\b|[;,]", choice)) and not REFUSED.search(choice)
        for choice in choices
    )


def check_licences(python: Path, target: Path) -> str:
    """All that is installed with jimsapi and its plugins has a licence that permits it. Writes the list."""
    command = [sys.executable, "-m", "piplicenses", f"--python={python}", "--from=mixed", "--with-urls"]
    packages = json.loads(_run([*command, "--format=json"]))
    target.write_text(_run([*command, "--format=markdown"]), encoding="utf-8")
    other = [one for one in packages if not is_allowed(one["License"])]
    bad = [f"{one['Name']} ({one['License']})" for one in other if one["Name"] not in UNDECLARED]
    if bad:
        raise CheckFailed(f"not an allowed licence: {', '.join(bad)}")
    undeclared = "".join(f"; {one['Name']} declares none" for one in other)
    return f"{len(packages)} packages{undeclared}; {target.name}"


def check_sbom(core: Project, target: Path) -> str:
    """The bill of materials names all that the lock of jimsapi has. Writes it as CycloneDX."""
    command = [sys.executable, "-m", "cyclonedx_py", "requirements", "--output-reproducible", "--output-format", "JSON"]
    document = json.loads(_run([*command, str(LOCKS / "core.lock")]))
    listed = {canonicalize_name(one["name"]): one["version"] for one in document.get("components", ())}
    locked = {name: version for name, (version, _) in read_lock("core").items()}
    if listed != locked:
        raise CheckFailed(f"it differs from core.lock in {sorted(set(listed.items()) ^ set(locked.items()))}")
    document["metadata"]["component"] = {
        "type": "library",
        "bom-ref": core.name,
        "name": core.name,
        "version": core.version,
        "purl": f"pkg:pypi/{core.name}@{core.version}",
        "licenses": [{"license": {"id": core.metadata["license"]}}],
    }
    target.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    return f"{len(listed)} components; {target.name}"


def _run(command: Sequence[str], cwd: Path | None = None) -> str:
    """Run a command and return what it printed. Raises `CheckFailed` with its last line."""
    ran = subprocess.run(
        command, cwd=cwd, capture_output=True, stdin=subprocess.DEVNULL, text=True, timeout=600, check=False
    )
    if ran.returncode:
        said = (ran.stderr.strip() or ran.stdout.strip() or "it printed nothing").splitlines()[-1]
        raise CheckFailed(f"{' '.join(Path(command[0]).parts[-1:])} {' '.join(command[1:4])} …: {said}")
    return ran.stdout
