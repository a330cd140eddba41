"""MCP's own conformance suite, for both eras: what it finds, and why it does not find more.

A chat does what the tools of the suite do (`conformance_tools.py`). Each check that fails is listed here with a reason:
another one fails the test, and so does one that has gone.
"""

import json
import re
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from conformance_tools import ConformanceServer

from tests.node import install, node

HERE = Path(__file__).parent
SUITE = HERE / "node_modules" / "@modelcontextprotocol" / "conformance" / "dist" / "index.js"
RUN_WITHIN = 180.0
Findings = dict[str, list[tuple[str, str, str]]]
"""The checks by their status, each as scenario, check and message."""
RESULT = re.compile(r"server-(.+)-\d{4}-\d{2}-\d{2}T[^/]*")

FIGURES: Mapping[str, Mapping[str, int]] = {
    "2026-07-28": {"FAILURE": 35, "INFO": 1, "SKIPPED": 7, "SUCCESS": 138, "WARNING": 1},
    "2025-11-25": {"FAILURE": 19, "INFO": 4, "SKIPPED": 2, "SUCCESS": 53},
}
"""How often each status comes."""

FAILURES: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "2026-07-28": {
        "A chat has no prompts, and nothing to complete in them.": (
            "caching:sep-2549-prompts-list-caching-hints",
            "completion-complete:completion-complete",
            "input-required-result-non-tool-request:sep-2322-non-tool-incomplete",
            "prompts-get-embedded-resource:prompts-get-embedded-resource",
            "prompts-get-simple:prompts-get-simple",
            "prompts-get-with-args:prompts-get-with-args",
            "prompts-get-with-image:prompts-get-with-image",
            "prompts-list:prompts-list",
        ),
        "No tool repeats an argument in a header.": (
            "http-custom-header-server-validation:sep-2243-server-no-xmcp-tool",
            "http-custom-header-server-validation:sep-2243-server-decode-base64",
            "http-custom-header-server-validation:sep-2243-server-validate-param-match",
            "http-custom-header-server-validation:sep-2243-server-reject-invalid-param-chars",
            "http-custom-header-server-validation:sep-2243-server-reject-param-mismatch",
        ),
        "The suite wants a key of its own. Our keys are the identifiers of the questions.": (
            "input-required-result-basic-elicitation:sep-2322-elicitation-incomplete",
        ),
        "The server asks persons, and never the client's model or for its folders.": (
            "input-required-result-basic-list-roots:sep-2322-list-roots-incomplete",
            "input-required-result-basic-sampling:sep-2322-sampling-incomplete",
            "input-required-result-capability-check:sep-2322-respect-client-capabilities",
            "input-required-result-multiple-input-requests:sep-2322-multiple-inputs-incomplete",
            "server-stateless:sep-2575-server-rejects-undeclared-capability",
            "server-stateless:sep-2575-missing-capability-http-400",
        ),
        "The suite wants a tool with a schema of its own.": ("json-schema-2020-12:json-schema-2020-12-tool-found",),
        "The resources are threads. Those that the suite asks for do not exist.": (
            "resources-read-binary:resources-read-binary",
            "resources-read-text:resources-read-text",
            "resources-templates-read:resources-templates-read",
        ),
        "The client alone decides about tasks: a pipeline does not say beforehand how long it takes.": (
            "tasks-dispatch-and-envelope:sep-2663-legacy-task-param-ignored",
            "tasks-dispatch-and-envelope:tasks-result-type-complete-on-non-task-responses",
            "tasks-lifecycle:tasks-sync-tool-call",
            "tasks-mrtr-composition:sep-2663-mrtr-synchronous-before-task-creation",
            "tasks-request-headers:tasks-headers-tolerate-mcp-method-on-tools-call",
            "tasks-required-task-error:sep-2663-server-returns-missing-capability-when-required",
        ),
        "A pipeline that raises is a tool that failed. The server cannot know which exception is meant otherwise.": (
            "tasks-lifecycle:sep-2663-tasks-get-status-failed",
        ),
        "The answer of a chat is a text.": (
            "tools-call-audio:tools-call-audio",
            "tools-call-embedded-resource:tools-call-embedded-resource",
            "tools-call-image:tools-call-image",
            "tools-call-mixed-content:tools-call-mixed-content",
        ),
    },
    "2025-11-25": {
        "A chat has no prompts, and nothing to complete in them.": (
            "completion-complete:completion-complete",
            "prompts-get-embedded-resource:prompts-get-embedded-resource",
            "prompts-get-simple:prompts-get-simple",
            "prompts-get-with-args:prompts-get-with-args",
            "prompts-get-with-image:prompts-get-with-image",
            "prompts-list:prompts-list",
        ),
        "The suite wants a tool with a schema of its own.": ("json-schema-2020-12:json-schema-2020-12-tool-found",),
        "The server sends no log messages.": (
            "logging-set-level:logging-set-level",
            "tools-call-with-logging:tools-call-with-logging",
        ),
        "The resources are threads. Those that the suite asks for do not exist.": (
            "resources-read-binary:resources-read-binary",
            "resources-read-text:resources-read-text",
            "resources-templates-read:resources-templates-read",
        ),
        "The server sends no notifications about resources: they are read again.": (
            "resources-subscribe:resources-subscribe",
            "resources-unsubscribe:resources-unsubscribe",
        ),
        "The answer of a chat is a text.": (
            "tools-call-audio:tools-call-audio",
            "tools-call-embedded-resource:tools-call-embedded-resource",
            "tools-call-image:tools-call-image",
            "tools-call-mixed-content:tools-call-mixed-content",
        ),
        "The server asks persons, and never the client's model or for its folders.": (
            "tools-call-sampling:tools-call-sampling",
        ),
    },
}
"""The checks that fail, as `scenario:check`, by the reason."""


@pytest.fixture(scope="module")
def server() -> Iterator[ConformanceServer]:
    with ConformanceServer() as server:
        yield server


def run_suite(url: str, revision: str, folder: Path) -> Findings:
    """Run what a revision requires."""
    install(HERE)
    command = [str(node()), str(SUITE), "server", "--url", url, "--requirements", revision, "-o", str(folder)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=RUN_WITHIN, check=False)
    found: Findings = {}
    for file in sorted(folder.glob("*/checks.json")):
        scenario = RESULT.fullmatch(file.parent.name)
        assert scenario is not None, file
        for check in json.loads(file.read_text()):
            entry = (scenario[1], check["id"], check.get("errorMessage", ""))
            found.setdefault(check["status"], []).append(entry)
    assert found, ended.stderr
    return found


def difference(found: Findings, revision: str) -> dict[str, object]:
    """What differs from what is known: checks that fail with their messages, checks that do not, and the figures."""
    failed = {f"{scenario}:{check}": message for scenario, check, message in found.get("FAILURE", ())}
    known = [check for checks in FAILURES[revision].values() for check in checks]
    figures = {status: len(checks) for status, checks in found.items()}
    differs: dict[str, object] = {
        "new": {check: message for check, message in failed.items() if check not in known},
        "gone": [check for check in known if check not in failed],
        "figures": {} if figures == FIGURES[revision] else figures,
    }
    return {name: value for name, value in differs.items() if value}


@pytest.mark.parametrize("revision", FIGURES)
def test_the_suite_finds_what_is_known_and_nothing_else(
    server: ConformanceServer, revision: str, tmp_path: Path
) -> None:
    first = difference(run_suite(server.url, revision, tmp_path / "first"), revision)
    if first:  # the suite drops two streamed calls after 0.5 and 0.6 seconds, which a machine that is busy may need
        assert difference(run_suite(server.url, revision, tmp_path / "again"), revision) == {}, first
