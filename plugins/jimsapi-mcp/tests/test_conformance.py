"""MCP's own conformance suite, for both eras: what it finds, and why each of its failures is none of ours.

The suite expects a server that is made for it, with prompts, and tools such as `test_image_content`. A chat has none of
these. Each failure stands here with its reason: another one fails the test, and so does one that has gone.
"""

import json
import re
import subprocess
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.node import install, node
from tests.serving import Served

HERE = Path(__file__).parent
SUITE = HERE / "node_modules" / "@modelcontextprotocol" / "conformance" / "dist" / "index.js"
RUN_WITHIN = 180.0
RESULT = re.compile(r"server-(.+)-\d{4}-\d{2}-\d{2}T[^/]*")

FIGURES: Mapping[str, Mapping[str, int]] = {"2026-07-28": {}, "2025-11-25": {}}
"""How often each status comes."""

FAILURES: Mapping[str, Mapping[str, tuple[str, ...]]] = {"2026-07-28": {}, "2025-11-25": {}}
"""The checks that fail, as `scenario:check`, by the reason."""


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with Served("--app", "tests.apps.watched:app") as server:
        yield server


def run_suite(url: str, revision: str, folder: Path) -> dict[str, list[tuple[str, str, str]]]:
    """Run what a revision requires; the results by status, each as scenario, check and message."""
    install(HERE)
    command = [node(), SUITE, "server", "--url", url, "--requirements", revision, "-o", folder]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=RUN_WITHIN, check=False)
    found: dict[str, list[tuple[str, str, str]]] = {}
    for file in sorted(folder.glob("*/checks.json")):
        scenario = RESULT.fullmatch(file.parent.name)
        assert scenario is not None, file
        for check in json.loads(file.read_text()):
            entry = (scenario[1], check["id"], check.get("errorMessage", ""))
            found.setdefault(check["status"], []).append(entry)
    assert found, ended.stderr
    return found


@pytest.mark.parametrize("revision", FIGURES)
def test_the_suite_finds_what_is_known_and_nothing_else(served: Served, revision: str, tmp_path: Path) -> None:
    found = run_suite(f"{served.url}/mcp", revision, tmp_path)
    failed = {f"{scenario}:{check}": message for scenario, check, message in found.get("FAILURE", ())}
    known = Counter(check for checks in FAILURES[revision].values() for check in checks)
    assert {check: message for check, message in failed.items() if check not in known} == {}
    assert [check for check in known if check not in failed] == []
    assert max(known.values(), default=1) == 1
    assert {status: len(checks) for status, checks in found.items()} == FIGURES[revision]
