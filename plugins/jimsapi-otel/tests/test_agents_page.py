"""The page on traces of agents: what it shows is what a collector receives."""

import re
import shlex
from pathlib import Path

from otlp_collector import Collector

from tests.docs.snippets import ROOT, blocks
from tests.serving import Served

PAGE = "docs/agent-traces.md"
ON, LANGFUSE, PHOENIX = blocks(PAGE, "sh")
[TREE] = blocks(PAGE, "text")
BOT = """
from jimsapi import JimsApp
from opentelemetry import trace

async def pipeline(ctx):
    async with ctx.tool("search"):
        with trace.get_tracer("client").start_as_current_span("GET"):
            pass
    async with ctx.tool("book"):
        pass
    usage = {"cached_tokens": 12, "cost": 0.25, "duration": 1.5}
    ctx.usage(model="openai/gpt-5", input_tokens=812, output_tokens=44, **usage)
    if ctx.get_last_user_message() == "fail":
        with ctx.tool("book") as call:
            call.error = "no room"
        raise LookupError

app = JimsApp(pipeline, name="bot")
"""


def served(block: str, collector: Collector, folder: Path, *messages: str) -> None:
    """Run the command of a block, send it messages, and stop it."""
    (folder / "bot.py").write_text(BOT)
    options = shlex.split(block.strip().splitlines()[-1].partition("jimsapi ")[2])
    endpoint = re.search(r"OTEL_EXPORTER_\w*ENDPOINT", block)
    assert endpoint is not None
    is_base = endpoint[0] == "OTEL_EXPORTER_OTLP_ENDPOINT"
    env = {endpoint[0]: collector.url if is_base else f"{collector.url}/v1/traces"}
    with Served(*options, folder=folder, env=env) as server, server.client() as client:
        for message in messages:
            client.post("/api/v1/chat", json={"contact_id": "ann", "message": message})
        assert server.stop() == 0


def rows(heading: str) -> list[list[str]]:
    """The cells of the table below a heading."""
    text = (ROOT / PAGE).read_text(encoding="utf-8").partition(f"## {heading}\n")[2].partition("\n## ")[0]
    table = [line for line in text.splitlines() if line.startswith("| `")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in table]


def names(cell: str) -> set[str]:
    return set(re.findall(r"`([a-z_.]+)`", cell))


def test_the_trace_of_a_chat_is_the_tree_of_the_page_and_its_spans_have_the_attributes_of_the_table(
    collector: Collector, tmp_path: Path
) -> None:
    served(ON, collector, tmp_path, "hi")
    path: list[str] = []
    shown = []
    for line in TREE.splitlines():
        name = re.split(r"\s{2,}", line.strip())[0]
        path[(len(line) - len(line.lstrip())) // 2 :] = [name]
        shown.append((name, path[-2] if len(path) > 1 else None))
    by_id = {span.span_id: span.name for span in collector.spans}
    assert sorted(shown, key=str) == sorted(((one.name, by_id.get(one.parent_id)) for one in collector.spans), key=str)
    for span, kind, _, attributes in rows("Spans"):
        operation = span.strip("`").partition(" ")[0]
        found = [one for one in collector.spans if one.name.startswith(f"{operation} ")]
        assert found
        assert {name for one in found for name in one.attributes} == names(attributes)
        assert {one.kind for one in found} == {{"internal": 1, "client": 3}[kind]}


def test_metrics_are_those_of_the_table(collector: Collector, tmp_path: Path) -> None:
    served(ON, collector, tmp_path, "hi", "fail")
    shown = {}
    for name, unit, attributes in rows("Metrics"):
        kinds = names(attributes.replace("(`input`, `output`)", ""))
        shown[name.strip("`")] = (unit, kinds)
    usage = shown["gen_ai.client.token.usage"][1] - {"gen_ai.token.type"}
    shown["gen_ai.client.operation.duration"] = ("s", usage)  # the table says: the same without the type
    found: dict[str, tuple[str, set[str]]] = {}
    for one in collector.measured:
        found[one.name] = (one.unit, found.get(one.name, ("", set()))[1] | one.attributes.keys())
    assert found == shown


def test_the_commands_for_langfuse_and_phoenix_export_content_and_no_metrics(
    collector: Collector, tmp_path: Path
) -> None:
    for block in (LANGFUSE, PHOENIX):
        collector.clear()
        served(block, collector, tmp_path, "hi")
        assert set(collector.paths) == {"/v1/traces"}
        [agent] = collector.named("invoke_agent bot")
        assert "gen_ai.input.messages" in agent.attributes
