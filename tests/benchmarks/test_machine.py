"""What is told of the machine that is measured on, and who else uses it."""

import getpass
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from benchmarks.machine import file_system, machine, used_by_all, used_by_others, written_to_disk

WORK = "import time\nwhile time.process_time() < 0.5: pass\n"


def test_nothing_names_the_machine_its_user_or_a_folder() -> None:
    told = json.dumps(machine())
    for name in (socket.gethostname(), getpass.getuser(), str(Path.home()), str(Path.cwd())):
        assert name not in told


def test_what_was_started_here_is_not_taken_for_the_work_of_others() -> None:
    everybody, others = used_by_all(), used_by_others()
    subprocess.run([sys.executable, "-c", WORK], check=True)
    assert used_by_all() - everybody - (used_by_others() - others) > 0.4


def test_the_work_of_others_is_noticed() -> None:
    others = used_by_others()
    # As long as it has not ended it is none of the children that count as ours.
    work = [sys.executable, "-c", f"{WORK}print(flush=True)\ninput()"]
    with subprocess.Popen(work, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        other.stdout.readline()
        noticed = used_by_others() - others
        other.communicate("\n")
    assert noticed > 0.4


def test_what_a_disk_writes_is_counted() -> None:
    size = 1 << 20
    with TemporaryDirectory(dir=Path(__file__).parent) as folder:  # that of pytest may be in memory
        before = written_to_disk(Path(folder))
        (Path(folder) / "file").write_bytes(os.urandom(size))
        after = written_to_disk(Path(folder))
    if before is None or after is None:
        pytest.skip("the folder is on no disk of this machine")
    assert after - before >= size


def test_of_file_systems_at_one_place_the_last_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    findmnt = tmp_path / "findmnt"
    findmnt.write_text("#!/bin/sh\necho ext4\necho tmpfs\n")
    findmnt.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert file_system(tmp_path) == "tmpfs"
