"""The server against its own OpenAPI document: `python -m tests.hostile.schema --examples 200 --seed 1`.

schemathesis makes requests that the document allows and such as it forbids, and compares each answer with what the
document says of it: the status, the content type, the body. The command ends with status 1 if an answer differs, or if
one is a 5xx.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.hostile.api_requests import KEY
from tests.serving import ROOT, Served

LISTS = {("get", "/api/v1/runs"), ("get", "/api/v1/contacts")}
"""What a caller that is bound to no contact may ask for all contacts together."""


def check(examples: int, seed: int) -> tuple[int, str]:
    """Check every operation with so many requests. Returns schemathesis's status, 0 if all is well, and its report."""
    with tempfile.TemporaryDirectory() as folder, Served("--api-key", KEY, "--plugins", "none") as served:
        with served.client() as client:
            document = client.get("/openapi.json").json()
        path = Path(folder) / "openapi.json"
        path.write_text(json.dumps(without_the_unsaid(document)))
        command = [sys.executable, "-m", "schemathesis.cli", "run", str(path), "--url", served.url, "--checks", "all"]
        # A run goes with its thread when that is deleted, which the check of created resources does not know.
        command += ["--exclude-checks", "ensure_resource_availability"]
        command += ["--header", f"Authorization: Bearer {KEY}", "--warnings", "off", "--no-color"]
        command += ["--max-examples", str(examples), "--seed", str(seed), "--continue-on-failure"]
        env = {**os.environ, "PYTHONPATH": str(ROOT), "SCHEMATHESIS_HOOKS": "tests.hostile.schema_hooks"}
        done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout + done.stderr


def without_the_unsaid(document: dict[str, Any]) -> dict[str, Any]:
    """The document without what it cannot say, so that every check can be made with all the rest.

    - A WebSocket's handshake: no request but that gets anything else than 426.
    - `after` of a list: what the server handed out. `after` of a stream is tried with Last-Event-ID elsewhere.
    - `webhook_url` and `files`: the operator decides whether the server calls webhooks and stores files.
    - `before` of a fork excludes `at`.
    - `contact_id` is a must for callers that are bound to none, such as this one, except in `LISTS`.
    - The caller of usage, whom `provider` and `subject` name together, and its days: the first is not after the last.
    - Streams: schemathesis reads them event by event, as OpenAPI 3.2 has them; in 3.1 they are one text.
    """
    document["paths"].pop("/api/v1/chat/ws")
    schemas = document["components"]["schemas"]
    for model, names in {"Inbound": ("webhook_url", "files"), "Fork": ("before",)}.items():
        schemas[model]["properties"].update({name: {"type": "null"} for name in names})
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            left_out = {"after", "provider", "subject", "first_day", "last_day"}
            parameters = [one for one in operation.get("parameters", ()) if one["name"] not in left_out]
            for parameter in parameters:
                if parameter["name"] == "contact_id" and (method, path) not in LISTS:
                    parameter.update(required=True, schema={"type": "string"})
            operation["parameters"] = parameters
            operation["responses"].get("200", {}).get("content", {}).get("text/event-stream", {}).pop("schema", None)
    return document


def main() -> int:
    """The command. Returns its exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.hostile.schema", description=__doc__)
    parser.add_argument("--examples", type=int, default=50, help="requests to each operation, in each phase")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    status, report = check(options.examples, options.seed)
    print(report)
    return status


if __name__ == "__main__":
    sys.exit(main())
