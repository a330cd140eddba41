"""Search for bytes that break a parser: `python -m tests.hostile.guided --runs 100000 --seed 1 [TARGET...]`.

With atheris installed (`pip install atheris`) the search is guided by what the code does with its input. Without it the
same targets run under hypothesis, and the command says so. What breaks a target is kept below `cases/`, and the command
ends with status 1.
"""

import argparse
import importlib
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from tests.hostile.cases import Case, write

MAX_BYTES = 2_000


def edited(seeds: Sequence[bytes]) -> st.SearchStrategy[bytes]:
    """Bytes of any kind, and seeds in which some were replaced."""
    edits = st.lists(st.tuples(st.integers(0, 300), st.integers(0, 8), st.binary(max_size=6)), max_size=6)
    return st.binary(max_size=200) | st.builds(_edit, st.sampled_from(seeds), edits)


def _edit(data: bytes, edits: list[tuple[int, int, bytes]]) -> bytes:
    for at, removed, added in edits:
        data = data[:at] + added + data[at + removed :]
    return data


def search_by_chance(name: str, runs: int, number: int, folder: str) -> None:
    """Call a target so many times. Raises what the target does, and leaves the shortest bytes that do it in the folder
    as `crash-…`, as atheris does."""
    from tests.hostile.targets import SEEDS, TARGETS

    @seed(number)
    @settings(
        max_examples=runs,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=(Phase.generate, Phase.shrink),
    )
    @given(edited(SEEDS[name]))
    def call(data: bytes) -> None:
        try:
            TARGETS[name](data)
        except Exception:
            Path(folder, f"crash-{name}").write_bytes(data)  # the last time with the shortest
            raise

    call()


def _guided(name: str, runs: int, number: int, folder: str) -> None:
    """The same with atheris, which ends the process: with status 0, or after it has left `crash-…` in the folder."""
    atheris: Any = importlib.import_module("atheris")
    with atheris.instrument_imports(include=["jimsapi", "jimsapi_oidc"]):
        from tests.hostile.targets import SEEDS, TARGETS
    corpus = Path(folder) / "corpus"
    corpus.mkdir()
    for place, data in enumerate(SEEDS[name]):
        (corpus / str(place)).write_bytes(data)
    arguments = ["fuzz", f"-runs={runs}", f"-seed={number}", f"-max_len={MAX_BYTES}", f"-artifact_prefix={folder}/"]
    atheris.Setup([*arguments, "-verbosity=0", str(corpus)], TARGETS[name])
    atheris.Fuzz()


def search(name: str, runs: int, number: int) -> str:
    """Search one target, in a process of its own. Returns what was found, as text, or ""."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "tests.hostile.guided", name, "--runs", str(runs), "--seed", str(number)]
        done = subprocess.run([*command, "--here", folder], capture_output=True, text=True, check=False)
        if done.returncode == 0:
            return ""
        for crash in Path(folder).glob("crash-*"):
            report = f"{done.stdout}\n{done.stderr}".strip()
            kept = write(Case(crash.name[:14], _error_in(report), crash.read_bytes()), f"targets/{name}")
            return f"{report}\nkept as {kept}"
        return done.stdout + done.stderr


def _error_in(report: str) -> str:
    """The line of a report that names the exception."""
    lines = [line.strip(" |") for line in report.splitlines() if re.match(r"[ |]*[\w.]*(Error|Exception)\b", line)]
    return lines[0][:200] if lines else "It ended."


def main() -> int:
    """The command. Returns its exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.hostile.guided", description=__doc__)
    parser.add_argument("target", nargs="*", help="a name in targets.py; all unless named")
    parser.add_argument("--runs", type=int, default=10_000, help="calls of each target")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--here", metavar="FOLDER", help=argparse.SUPPRESS)
    options = parser.parse_args()
    has_atheris = find_spec("atheris") is not None
    if options.here and has_atheris:
        _guided(options.target[0], options.runs, options.seed, options.here)
        return 0
    if options.here:
        search_by_chance(options.target[0], options.runs, options.seed, options.here)
        return 0
    from tests.hostile.targets import TARGETS  # not before: atheris has to see the imports

    print("guided by atheris" if has_atheris else "atheris is not installed: by chance, with hypothesis")
    failures = 0
    for name in options.target or TARGETS:
        found = search(name, options.runs, options.seed)
        print(
            f"{name}: {options.runs} runs, {'broken' if found else 'nothing found'}", found, sep="\n" if found else ""
        )
        failures += bool(found)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
