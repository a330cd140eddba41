"""The source as it is published: a copy of the repository, in which the links of every README are absolute."""

import posixpath
import re
import shutil
from pathlib import Path

from tests.release.projects import Project, read_projects

_LEFT_OUT = shutil.ignore_patterns(
    *(".git", ".venv*", "build", "dist", "*.egg-info", "node_modules", "__pycache__", "*.py[cod]"),
    *(".hypothesis", ".mypy_cache", ".pytest_cache", ".ruff_cache", ".benchmarks", "*.db", "*.db-shm", "*.db-wal"),
)
_FENCED = re.compile(r"^(```.*?^```)$", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"(!?)\[((?:[^\[\]]|!\[[^\]]*\]\([^)]*\))*)\]\(([^)#:\s]+)(#[^)\s]*)?\)")


class BrokenLink(Exception):
    """A README links to a file that does not exist."""


def copy_source(root: Path, target: Path) -> list[Project]:
    """Copy the repository to `target`, make the links of every README absolute, and return the projects of the copy.

    Raises `BrokenLink`.
    """
    shutil.copytree(root, target, ignore=_LEFT_OUT, symlinks=True)
    projects = read_projects(target)
    repository = projects[0].urls["Source"]
    for project in projects:
        page = project.folder / "README.md"
        text = absolute_links(page.read_text(encoding="utf-8"), page, target, f"{repository}/{{}}/v{project.version}")
        page.write_text(text, encoding="utf-8")
    return projects


def absolute_links(text: str, page: Path, root: Path, address: str) -> str:
    """Return the text of a page with absolute links to the files of the repository.

    Package indexes show a README without the files beside it. `address` is the address of a file without its path; `{}`
    in it is `blob` for a file, `tree` for a folder and `raw` for a picture. Raises `BrokenLink`.
    """

    def absolute(link: re.Match[str]) -> str:
        mark, label, path, heading = link.groups()
        target = (page.parent / path).resolve()
        if not target.exists():
            raise BrokenLink(f"{page.relative_to(root)} links to {path}, which does not exist")
        relative = target.relative_to(root.resolve()).as_posix()
        kind = "raw" if mark else "tree" if target.is_dir() else "blob"
        return f"{mark}[{label}]({posixpath.join(address.format(kind), relative)}{heading or ''})"

    parts = _FENCED.split(text)
    parts[::2] = [_LINK.sub(absolute, part) for part in parts[::2]]
    return "".join(parts)


def relative_links(text: str) -> list[str]:
    """Return the targets of all links of a page that are relative."""
    return [link[3] for part in _FENCED.split(text)[::2] for link in _LINK.finditer(part)]
