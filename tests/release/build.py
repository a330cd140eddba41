"""Builds sdists and wheels whose bytes depend on nothing but the source."""

import gzip
import io
import os
import subprocess
import sys
import tarfile
import time
import zipfile
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
    sdist.write_bytes(normalized_sdist(_only(work / "sdist", "*.tar.gz").read_bytes(), epoch))
    with tarfile.open(sdist) as archive:
        archive.extractall(work / "source", filter="data")
    unpacked = _only(work / "source", "*")
    _run_build(["--wheel", str(unpacked)], work / "wheel", epoch, umask)
    built = _only(work / "wheel", "*.whl")
    wheel = target / built.name
    wheel.write_bytes(normalized_wheel(built.read_bytes(), epoch))
    return [sdist, wheel]


def normalized_wheel(archive: bytes, epoch: int) -> bytes:
    """Return a wheel with the same files in the same order, all of one time, and with the same permissions."""
    content = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(archive)) as old, zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as new:
        for member in old.infolist():
            entry = zipfile.ZipInfo(member.filename, time.gmtime(epoch)[:6])
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = (0o100755 if member.external_attr >> 16 & 0o100 else 0o100644) << 16
            new.writestr(entry, old.read(member))
    return content.getvalue()


def normalized_sdist(archive: bytes, epoch: int) -> bytes:
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
