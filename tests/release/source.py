"""The source as it is published: the newest commit of the repository, with absolute links in every README."""

import posixpath
import re
import subprocess
import tarfile
from io import BytesIO
from pathlib import Path

from tests.release.projects import Project, read_projects

_FENCED = re.compile(r"^(```.*?^```)$", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"(!?)\[((?:[^\[\]]|!\[[^\]]*\]\([^)]*\))*)\]\(([^)#:\s]+)(#[^)\s]*)?\)")


class BrokenLink(Exception):
    """A README links to a file that does not exist."""


def copy_source(root: Path, target: Path) -> list[Project]:
    """Unpack the newest commit into `target`, make the links of every README absolute, and return the projects there.

    Raises `BrokenLink`, and `CalledProcessError` if `root` has no commit.
    """
    archive = subprocess.run(["git", "archive", "HEAD"], cwd=root, check=True, capture_output=True).stdout
    with tarfile.open(fileobj=BytesIO(archive)) as files:
        files.extractall(target, filter="tar")
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
