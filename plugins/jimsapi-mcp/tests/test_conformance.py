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

FIGURES: Mapping[str, Mapping[str, int]] = {
    "2026-07-28": {"FAILURE": 64, "INFO": 1, "SKIPPED": 7, "SUCCESS": 104, "WARNING": 2},
    "2025-11-25": {"FAILURE": 25, "INFO": 4, "SKIPPED": 2, "SUCCESS": 39},
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
        "The scenario calls a tool that only a server made for the suite has.": (
            "input-required-result-basic-elicitation:sep-2322-elicitation-incomplete",
            "input-required-result-basic-list-roots:sep-2322-list-roots-incomplete",
            "input-required-result-basic-sampling:sep-2322-sampling-incomplete",
            "input-required-result-capability-check:sep-2322-respect-client-capabilities",
            "input-required-result-multi-round:sep-2322-multi-round-r1",
            "input-required-result-multiple-input-requests:sep-2322-multiple-inputs-incomplete",
            "input-required-result-request-state:sep-2322-request-state-incomplete",
            "input-required-result-result-type:sep-2322-result-type-included",
            "input-required-result-tampered-state:sep-2322-reject-tampered-state",
            "json-schema-2020-12:json-schema-2020-12-tool-found",
            "server-stateless:sep-2575-server-rejects-undeclared-capability",
            "server-stateless:sep-2575-missing-capability-http-400",
            "server-stateless:sep-2575-http-server-no-independent-requests-on-stream",
            "tasks-capability-negotiation:sep-2663-server-rejects-undeclared-client",
            "tasks-capability-negotiation:tasks-per-request-meta-opt-in",
            "tasks-dispatch-and-envelope:tasks-server-directed-creation-no-hint",
            "tasks-dispatch-and-envelope:sep-2663-legacy-task-param-ignored",
            "tasks-dispatch-and-envelope:tasks-immediate-result-shortcut",
            "tasks-dispatch-and-envelope:tasks-result-type-complete-on-non-task-responses",
            "tasks-dispatch-and-envelope:sep-2663-durable-create-strong-consistency",
            "tasks-lifecycle:tasks-sync-tool-call",
            "tasks-lifecycle:sep-2663-result-type-task-on-create",
            "tasks-lifecycle:sep-2663-tasks-get-status-working",
            "tasks-lifecycle:sep-2663-tasks-get-status-completed",
            "tasks-lifecycle:sep-2663-tool-error-uses-completed-status",
            "tasks-lifecycle:sep-2663-tasks-get-status-failed",
            "tasks-lifecycle:sep-2663-cancel-ack-empty-result",
            "tasks-lifecycle:tasks-cancel-terminal-idempotent-ack",
            "tasks-mrtr-composition:sep-2663-mrtr-synchronous-before-task-creation",
            "tasks-mrtr-input:sep-2663-tasks-get-status-input-required",
            "tasks-mrtr-input:tasks-mrtr-tasks-update-resumes",
            "tasks-mrtr-input:tasks-mrtr-partial-fulfillment",
            "tasks-request-headers:tasks-headers-tolerate-mcp-method-on-tools-call",
            "tasks-request-headers:sep-2663-routing-headers-accepted-on-tasks-get",
            "tasks-request-headers:sep-2663-server-rejects-mismatched-mcp-name-on-tasks-get",
            "tasks-request-state-removal:tasks-request-state-removal-setup",
            "tasks-required-task-error:sep-2663-server-returns-missing-capability-when-required",
            "tasks-wire-fields:tasks-wire-field-renames",
            "tasks-wire-fields:tasks-no-early-ttl-expiry",
            "tasks-wire-fields:tasks-no-related-task-meta-on-inlined-result",
            "tools-call-audio:tools-call-audio",
            "tools-call-embedded-resource:tools-call-embedded-resource",
            "tools-call-error:tools-call-error",
            "tools-call-image:tools-call-image",
            "tools-call-mixed-content:tools-call-mixed-content",
            "tools-call-simple-text:tools-call-simple-text",
            "tools-call-with-progress:tools-call-with-progress",
        ),
        "The resources are threads; those of the suite are not there.": (
            "resources-read-binary:resources-read-binary",
            "resources-read-text:resources-read-text",
            "resources-templates-read:resources-templates-read",
        ),
        "The server sends no log messages.": ("server-stateless:sep-2575-server-no-log-without-loglevel",),
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
        "The scenario calls a tool that only a server made for the suite has.": (
            "elicitation-sep1034-defaults:elicitation-sep1034-general",
            "elicitation-sep1330-enums:elicitation-sep1330-general",
            "json-schema-2020-12:json-schema-2020-12-tool-found",
            "tools-call-audio:tools-call-audio",
            "tools-call-elicitation:tools-call-elicitation",
            "tools-call-embedded-resource:tools-call-embedded-resource",
            "tools-call-error:tools-call-error",
            "tools-call-image:tools-call-image",
            "tools-call-mixed-content:tools-call-mixed-content",
            "tools-call-sampling:tools-call-sampling",
            "tools-call-simple-text:tools-call-simple-text",
            "tools-call-with-progress:tools-call-with-progress",
        ),
        "The server sends no log messages.": (
            "logging-set-level:logging-set-level",
            "tools-call-with-logging:tools-call-with-logging",
        ),
        "The resources are threads; those of the suite are not there.": (
            "resources-read-binary:resources-read-binary",
            "resources-read-text:resources-read-text",
            "resources-templates-read:resources-templates-read",
        ),
        "The server sends no notifications about resources: their lists are read again.": (
            "resources-subscribe:resources-subscribe",
            "resources-unsubscribe:resources-unsubscribe",
        ),
    },
}
"""The checks that fail, as `scenario:check`, by the reason."""


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with Served("--app", "tests.apps.watched:app") as server:
        yield server


def run_suite(url: str, revision: str, folder: Path) -> dict[str, list[tuple[str, str, str]]]:
    """Run what a revision requires; the results by status, each as scenario, check and message."""
    install(HERE)
    command = [str(node()), str(SUITE), "server", "--url", url, "--requirements", revision, "-o", str(folder)]
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
