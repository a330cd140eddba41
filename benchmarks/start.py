"""What a start costs: seconds from exec to the first `/healthz`, and resident memory after the first chat.

The real command, with an SQLite store that does not exist yet, metrics and a key.
"""

import argparse
import tempfile
from pathlib import Path
from statistics import median

from benchmarks.floor import QUESTION, WITH_KEY
from benchmarks.serving import jimsapi

AIM_SECONDS = 0.5
AIM_MEGABYTES = 60.0


def main() -> None:
    """Run the command."""
    options = argparse.ArgumentParser(prog="python -m benchmarks.start", description=__doc__)
    options.add_argument("--runs", type=int, default=9)
    given = options.parse_args()
    start()  # compiles what is not compiled yet
    runs = [start() for _ in range(given.runs)]
    for unit, aim, figures in (
        ("s from exec to the first /healthz", AIM_SECONDS, [seconds for seconds, _, _ in runs]),
        ("s of processor time until then", AIM_SECONDS, [used for _, used, _ in runs]),
        ("MB resident after the first chat", AIM_MEGABYTES, [megabytes for _, _, megabytes in runs]),
    ):
        print(
            f"{median(figures):.3g} {unit} (median of {given.runs} runs, {min(figures):.3g} to {max(figures):.3g}); "
            f"aim: under {aim:g}"
        )


def start() -> tuple[float, float, float]:
    """Start once. Returns the seconds it took, those of processor time, and megabytes (of 10^6 bytes) after a chat."""
    with tempfile.TemporaryDirectory() as folder, jimsapi(f"sqlite:///{Path(folder)}/jims.db") as server:
        status, _, body = server.ask("POST", "/api/v1/chat", QUESTION, WITH_KEY)
        if status != 200:
            raise RuntimeError(f"the chat was answered {status}: {body.decode()}")
        return server.started_in, server.start_used, server.resident_bytes() / 1e6


if __name__ == "__main__":
    main()
