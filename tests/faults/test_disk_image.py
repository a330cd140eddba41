"""The disk that power cuts are simulated on: it keeps what was synced, and of the rest now this, now that."""

import subprocess
import sys
from pathlib import Path
from random import Random

from tests.faults.disk_image import Disk

SEEDS = range(200)
CUTS_IN_TWO = b"a" * 512 + b"b" * 512


def outcomes(tmp_path: Path, program: str, **options: bool) -> set[tuple[tuple[str, bytes], ...]]:
    """What a folder may hold after a program's writes and a power cut: paths and contents, for many a chance."""
    folder = tmp_path / "disk"
    folder.mkdir()
    (folder / "old").write_bytes(b"old")
    disk = Disk(folder, tmp_path, **options)
    disk.begin()
    subprocess.run([sys.executable, "-c", f"import os\n{program}"], cwd=folder, env=disk.env, check=True)
    found = set()
    for seed in SEEDS:
        disk.cut(disk.moment(), Random(seed))
        files = [path for path in folder.rglob("*") if path.is_file()]
        found.add(tuple(sorted((str(path.relative_to(folder)), path.read_bytes()) for path in files)))
    return found


def paths(tmp_path: Path, program: str) -> set[tuple[str, ...]]:
    """The paths in `outcomes`."""
    return {tuple(path for path, _ in files) for files in outcomes(tmp_path, program)}


NEW = "new = os.open('new', os.O_CREAT | os.O_WRONLY)\n"
FOLDER = "os.fsync(os.open('.', os.O_RDONLY))\n"


def test_what_was_synced_is_there_and_what_was_not_may_be_there_in_part(tmp_path: Path) -> None:
    program = f"{NEW}os.pwrite(new, b'x' * 1024, 0); os.fsync(new)\n{FOLDER}os.pwrite(new, {CUTS_IN_TWO!r}, 0)"
    contents = {dict(names)["new"] for names in outcomes(tmp_path, program)}
    a, b, x = b"a" * 512, b"b" * 512, b"x" * 512
    assert contents == {x + x, a + x, x + b, a + b}


def test_a_new_name_is_sure_once_its_folder_was_synced(tmp_path: Path) -> None:
    program = f"{NEW}os.write(new, b'n'); os.fdatasync(new)"
    assert outcomes(tmp_path, program) == {(("old", b"old"),), (("new", b"n"), ("old", b"old"))}


def test_a_new_name_is_sure_once_its_file_was_synced_on_a_disk_that_promises_it(tmp_path: Path) -> None:
    program = f"{NEW}os.write(new, b'n'); os.fdatasync(new)"
    assert outcomes(tmp_path, program, names_follow_files=True) == {(("new", b"n"), ("old", b"old"))}


def test_a_renaming_happens_as_a_whole_or_not_at_all(tmp_path: Path) -> None:
    program = f"{NEW}os.write(new, b'n'); os.fsync(new)\n{FOLDER}os.rename('new', 'old')"
    assert outcomes(tmp_path, program) == {(("new", b"n"), ("old", b"old")), (("old", b"n"),)}


MOVED = """
os.mkdir('in'); os.mkdir('kept')
new = os.open('in/new', os.O_CREAT | os.O_WRONLY)
os.write(new, b'n'); os.fsync(new)
for folder in ('in', '.'): os.fsync(os.open(folder, os.O_RDONLY))
os.rename('in', 'kept/out')
"""


def test_a_folder_is_renamed_with_what_is_in_it(tmp_path: Path) -> None:
    syncs = "for folder in ('kept', '.'): os.fsync(os.open(folder, os.O_RDONLY))\n"
    program = f"{MOVED}{syncs}os.unlink('new', dir_fd=os.open('kept/out', os.O_RDONLY))"
    assert paths(tmp_path, program) == {("kept/out/new", "old"), ("old",)}


def test_a_removal_and_a_truncation_may_be_undone(tmp_path: Path) -> None:
    program = f"{NEW}os.write(new, b'n'); os.fsync(new)\n{FOLDER}os.ftruncate(new, 0); os.unlink('old')"
    new = {dict(names)["new"] for names in outcomes(tmp_path, program)}
    assert new == {b"n", b""}


def test_what_is_written_synchronously_is_synced(tmp_path: Path) -> None:
    program = f"new = os.open('new', os.O_CREAT | os.O_WRONLY | os.O_DSYNC)\nos.write(new, b'n')\n{FOLDER}"
    assert outcomes(tmp_path, program) == {(("new", b"n"), ("old", b"old"))}


def test_a_full_disk_takes_no_writes_until_there_is_room(tmp_path: Path) -> None:
    folder = tmp_path / "disk"
    folder.mkdir()
    disk = Disk(folder, tmp_path)
    disk.begin()
    write = [sys.executable, "-c", "open('file', 'ab', buffering=0).write(b'n')"]
    disk.fill()
    refused = subprocess.run(write, cwd=folder, env=disk.env, check=False, capture_output=True)
    assert b"No space left on device" in refused.stderr
    disk.empty()
    subprocess.run(write, cwd=folder, env=disk.env, check=True)
    assert (folder / "file").read_bytes() == b"n"
