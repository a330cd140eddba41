"""Builds sdists and wheels whose bytes depend on nothing but the source."""

import gzip
import io
import os
import subprocess
import sys
import tarfile
from pathlib import Path

from tests.release.projects import Project

EARLIEST = 315532800
"""Seconds: the first of January 1980. The archives of wheels cannot hold an earlier time."""


class BuildFailed(Exception):
    """A build ended with an error, or built nothing. The text has the last line that it printed."""


def build(project: Project, target: Path, epoch: int, umask: int = 0o022) -> list[Path]:
    """Build the sdist of a project, and the wheel from the sdist, into `target`. Returns both paths.

    `epoch` is the time of every file in them. `umask` shows that permissions have no influence. Raises `BuildFailed`.
    """
    work = target.parent / f"{target.name}-{project.name}"
    _run_build(["--sdist", str(project.folder)], work / "sdist", epoch, umask)
    sdist = target / _only(work / "sdist", "*.tar.gz").name
    target.mkdir(parents=True, exist_ok=True)
    sdist.write_bytes(normalized(_only(work / "sdist", "*.tar.gz").read_bytes(), epoch))
    with tarfile.open(sdist) as archive:
        archive.extractall(work / "source", filter="data")
    unpacked = _only(work / "source", "*")
    _run_build(["--wheel", str(unpacked)], work / "wheel", epoch, umask)
    wheel = _only(work / "wheel", "*.whl")
    return [sdist, wheel.rename(target / wheel.name)]


def normalized(archive: bytes, epoch: int) -> bytes:
    """Return a `.tar.gz` archive with its files in order of their names, without users, and all of one time."""
    plain = io.BytesIO()
    with (
        tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as old,
        tarfile.open(fileobj=plain, mode="w", format=tarfile.PAX_FORMAT) as new,
    ):
        for member in sorted(old.getmembers(), key=lambda member: member.name):
            member.mtime, member.uid, member.gid, member.uname, member.gname = epoch, 0, 0, "", ""
            member.mode = 0o755 if member.isdir() or member.mode & 0o100 else 0o644
            member.pax_headers = {}
            new.addfile(member, old.extractfile(member) if member.isfile() else None)
    return gzip.compress(plain.getvalue(), mtime=epoch)


def _run_build(arguments: list[str], outcome: Path, epoch: int, umask: int) -> None:
    """Call the build frontend. Its requirements are installed here already: the Makefile does it."""
    ran = subprocess.run(
        [sys.executable, "-P", "-m", "build", "--no-isolation", "--outdir", str(outcome), *arguments],
        env={**os.environ, "SOURCE_DATE_EPOCH": str(epoch)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        umask=umask,
        timeout=600,
        check=False,
    )
    if ran.returncode:
        raise BuildFailed((ran.stdout.strip().splitlines() or ["the build printed nothing"])[-1])


def _only(folder: Path, pattern: str) -> Path:
    found = list(folder.glob(pattern))
    if len(found) != 1:
        raise BuildFailed(f"the build made {len(found)} files {pattern} in place of one")
    return found[0]
