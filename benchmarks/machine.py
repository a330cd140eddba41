"""The machine of a run: what it is, how soon its disk keeps what is written, and what other programs take of it."""

import os
import platform
import resource
import subprocess
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.serving import TICKS, family_seconds

QUIET = 0.1
"""Processors that other programs may use without disturbing what is measured."""
IN_MEMORY = ("tmpfs", "ramfs")
"""File systems that nothing is durable on."""
KERNEL = 2
"""The process whose children are the kernel's own threads: they write for whoever asked for it."""


def machine() -> dict[str, Any]:
    """What there is to say of it; nothing that names it or its user."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    processor = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")
    with tempfile.TemporaryDirectory() as folder:
        disk = {"file system": file_system(Path(folder)), "fsync ms": round(1e3 * fsync_seconds(Path(folder)), 3)}
    return {
        "processor": processor,
        "cores": len(os.sched_getaffinity(0)),
        "memory bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "kernel": f"{platform.system()} {platform.release()}",
        "load average before": round(os.getloadavg()[0], 2),
        **disk,
    }


def file_system(folder: Path) -> str:
    """The kind of file system that a folder is on: of several that are mounted at the same place, the last."""
    find = ["findmnt", "--noheadings", "--output", "FSTYPE", "--target", str(folder)]
    return subprocess.run(find, check=True, capture_output=True, text=True).stdout.split()[-1]


def written_to_disk(folder: Path) -> int | None:
    """The bytes that the disk of a folder was told to write since the machine started, whoever told it.

    What the system still had in memory is written first. None if the folder is on no disk of this machine.

    `/proc/PID/io` would tell apart who wrote, but the file systems of newer kernels count a page of a large folio that
    is written again as the whole folio.
    """
    os.sync()
    device = folder.stat().st_dev
    try:
        counters = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}/stat").read_text().split()
    except FileNotFoundError:
        return None
    return 512 * int(counters[6])


def fsync_seconds(folder: Path, times: int = 50) -> float:
    """How long a page that is appended to a file takes until it is on the disk: the median."""
    spent = []
    with (folder / "pages").open("wb", buffering=0) as file:
        for _ in range(times):
            began = time.perf_counter()
            file.write(bytes(4096))
            os.fsync(file.fileno())
            spent.append(time.perf_counter() - began)
    return median(spent)


class Others:
    """What other programs use of the processors, from now on: all that was used, but for this process, those that it
    started, and the kernel's threads. Time that a host gave to another virtual machine counts as used by others."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._used = used_by_others()

    def processors(self) -> float:
        """How many processors they kept busy since. What was started here must have ended."""
        return max(0.0, used_by_others() - self._used) / (time.monotonic() - self._began)


def used_by_others() -> float:
    """Processor seconds that neither this process, nor its ended children, nor the kernel's threads have used."""
    ours = 0.0
    for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN):
        usage = resource.getrusage(who)
        ours += usage.ru_utime + usage.ru_stime
    return used_by_all() - ours - family_seconds(KERNEL)


def used_by_all() -> float:
    """Seconds that the processors which we may use were in use, or taken away by the machine's host."""
    ticks = 0
    for line in Path("/proc/stat").read_text().splitlines():
        name, *fields = line.split()
        if name[:3] == "cpu" and name[3:].isdigit() and int(name[3:]) in os.sched_getaffinity(0):
            user, nice, system, _, _, _, _, stolen = map(int, fields[:8])
            ticks += user + nice + system + stolen
    return ticks / TICKS


def warnings(about: dict[str, Any], others: dict[str, float]) -> list[str]:
    """What speaks against quoting a run's figures. `others` is how many processors other programs kept busy: before the
    run, and by suite."""
    found = []
    if about["file system"] in IN_MEMORY:
        found.append(f"Stores were kept in memory ({about['file system']}): set TMPDIR to a folder on a disk.")
    if busy := {name: used for name, used in others.items() if used > QUIET}:
        told = ", ".join(f"{name} {used:.2f}" for name, used in busy.items())
        found.append(f"Other programs used this machine, so many of its {about['cores']} processors: {told}.")
    return found
