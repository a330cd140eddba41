"""What is told of the machine that is measured on, and who else uses it."""

import getpass
import json
import socket
import subprocess
import sys
from pathlib import Path

from benchmarks.machine import machine, used_by_others

WORK = "import time\nwhile time.process_time() < 0.5: pass\n"


def test_nothing_names_the_machine_its_user_or_a_folder() -> None:
    told = json.dumps(machine())
    for name in (socket.gethostname(), getpass.getuser(), str(Path.home()), str(Path.cwd())):
        assert name not in told


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
