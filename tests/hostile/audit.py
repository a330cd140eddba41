"""Known vulnerabilities of what is locked: `python -m tests.hostile.audit`, with pip-audit installed.

It ends with 0 if the service knows of none, with 1 if it does, and with 2 if nothing could be found out, for example
because the service was not reached: no answer is not a good one.
"""

import json
import subprocess
import sys

from tests.hostile.lock import FOLDER

NONE, SOME, UNKNOWN = 0, 1, 2


def audit(lock: str) -> tuple[int, str]:
    """Look a lock file up. Returns a status and what to tell."""
    command = [sys.executable, "-m", "pip_audit", "--requirement", str(FOLDER / f"{lock}.lock")]
    command += ["--disable-pip", "--require-hashes", "--format", "json", "--progress-spinner", "off"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return verdict(lock, done.stdout, done.stderr)


def verdict(lock: str, found: str, complaints: str) -> tuple[int, str]:
    """What pip-audit's two outputs mean."""
    try:
        packages = json.loads(found)["dependencies"]
    except (ValueError, KeyError):
        reason = (complaints.strip().splitlines() or ["pip-audit said nothing"])[-1]
        return UNKNOWN, f"{lock}.lock was NOT audited: {reason}\nSee that the vulnerability service can be reached."
    skipped = [package for package in packages if "skip_reason" in package]
    if skipped:
        first = f"{skipped[0]['name']}: {skipped[0]['skip_reason']}"
        return (
            UNKNOWN,
            f"{lock}.lock was NOT audited: {len(skipped)} of {len(packages)} packages are unknown, as {first}",
        )
    lines = [
        f"{package['name']} {package['version']}: {fault['id']}, mended in {', '.join(fault['fix_versions']) or 'none'}"
        for package in packages
        for fault in package["vulns"]
    ]
    summary = f"{lock}.lock: {len(packages)} packages, {len(lines)} known vulnerabilities"
    return (SOME if lines else NONE), "\n".join([summary, *lines])


def main() -> int:
    """The command. Returns its exit status."""
    verdicts = [audit(lock) for lock in ("core", "test")]
    for _, text in verdicts:
        print(text)
    return max(status for status, _ in verdicts)


if __name__ == "__main__":
    sys.exit(main())
