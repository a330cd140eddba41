"""`jimsapi connect` with a server that serves all protocols: what it prints works in the clients that it is for."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import httpx
import httpx2
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from jimsapi.builtin.keys_file import KeysFile
from tests.command import run_command
from tests.node import install, node
from tests.serving import ROOT, Served

pytestmark = pytest.mark.anyio

AGUI = Path(__file__).resolve().parents[1] / "jimsapi-agui" / "tests"
PROTOCOLS = ["mcp", "a2a", "openai", "agui", "vercel", "deepchat"]
SCRIPTED = ("--app", "tests.apps.scripted:app")
ANSWER = "You said: Hello"


@dataclass(frozen=True)
class Site:
    """A server that needs a key, and keys by name."""

    served: Served
    keys: dict[str, str]

    @property
    def url(self) -> str:
        return self.served.url


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    file = tmp_path_factory.mktemp("keys") / "keys.json"
    store = KeysFile(file)
    keys = {
        "all": store.add("all")[0],
        "ann": store.add("ann", contact_id="ann", scopes=("chat",))[0],
    }
    with Served(*SCRIPTED, "--keys-file", str(file)) as served:
        yield Site(served, keys)


def connect(url: str, *options: str, key: str = "") -> "subprocess.CompletedProcess[str]":
    return run_command("connect", url, *options, cwd=ROOT, env={"JIMS_API_KEY": key} if key else {})


@cache
def found(url: str, key: str = "") -> Any:
    """What the command prints as JSON about a server. It is asked once."""
    ran = connect(url, "--json", key=key)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert not key or key not in ran.stdout
    return json.loads(ran.stdout)


def example(report: Any, protocol: str, client: str) -> str:
    """The text for a client."""
    part = report["chat"] if protocol == "chat" else report["protocols"][protocol]
    [text] = [one["text"] for one in part["examples"] if client in one["client"]]
    return str(text)


def run(command: list[str], folder: Path, **env: str) -> str:
    ran = subprocess.run(
        command, cwd=folder, env={"PATH": "/usr/bin:/bin", **env}, capture_output=True, text=True, timeout=60
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


@pytest.mark.parametrize("who", ["all", "ann"])
def test_every_protocol_is_found_and_no_fault(site: Site, who: str) -> None:
    report = found(site.url, site.keys[who])
    assert (report["access"], report["is_bound_to_contact"]) == ("key_accepted", who == "ann")
    protocols = report["protocols"]
    assert [name for name, one in protocols.items() if one["served"]] == PROTOCOLS
    assert protocols["mcp"]["names"] == ["chat", "chat_start", "chat_get", "chat_cancel"]
    assert protocols["openai"]["names"] == ["scripted"]
    assert [one["protocolBinding"] for one in protocols["a2a"]["interfaces"]] == ["JSONRPC", "HTTP+JSON"]
    assert protocols["a2a"]["url"] == f"{site.url}/.well-known/agent-card.json"
    assert (report["problems"], report["notes"]) == ([], [])


CONFIGURATIONS = [
    (".mcp.json", "mcpServers", "${JIMS_API_KEY}"),
    ("Cursor", "mcpServers", "${env:JIMS_API_KEY}"),
    ("VS Code", "servers", "${input:jims-api-key}"),
]


@pytest.mark.parametrize(("client", "field", "variable"), CONFIGURATIONS)
async def test_an_mcp_configuration_connects_a_client(site: Site, client: str, field: str, variable: str) -> None:
    report = found(site.url, site.keys["ann"])
    configuration = json.loads(example(report, "mcp", client))
    [server] = configuration[field].values()
    assert server["headers"] == {"Authorization": f"Bearer {variable}"}
    if client == "VS Code":
        assert configuration["inputs"][0]["id"] == "jims-api-key"
        assert configuration["inputs"][0]["password"] is True
    headers = {name: value.replace(variable, site.keys["ann"]) for name, value in server["headers"].items()}
    async with (
        httpx2.AsyncClient(headers=headers, timeout=30) as http,
        Client(streamable_http_client(server["url"], http_client=http)) as connected,
    ):
        result = await connected.call_tool("chat", {"message": "Hello"})
    assert result.structured_content is not None
    assert result.structured_content["text"] == ANSWER


def test_claude_desktop_gets_a_program_that_connects(site: Site) -> None:
    report = found(site.url, site.keys["ann"])
    [server] = json.loads(example(report, "mcp", "Claude Desktop"))["mcpServers"].values()
    assert [server["command"], *server["args"][:3]] == ["npx", "-y", "mcp-remote", f"{site.url}/mcp"]
    assert server["args"][-2:] == ["--header", "Authorization:${AUTHORIZATION}"]
    assert server["env"] == {"AUTHORIZATION": "Bearer YOUR_KEY"}


@pytest.mark.parametrize("who", ["all", "ann"])
def test_the_examples_for_openai_a2a_and_curl_are_answered(site: Site, tmp_path: Path, who: str) -> None:
    report, key = found(site.url, site.keys[who]), site.keys[who]
    program = example(report, "openai", "Python")
    assert run([sys.executable, "-c", program], tmp_path, JIMS_API_KEY=key).strip() == ANSWER
    exported = f'{example(report, "openai", "environment")}\nexec {sys.executable} -c "$PROGRAM"'
    by_itself = "from openai import OpenAI; print(OpenAI().models.list().data[0].id)"
    assert run(["bash", "-c", exported], tmp_path, JIMS_API_KEY=key, PROGRAM=by_itself).strip() == "scripted"
    answer = json.loads(run(["bash", "-c", example(report, "chat", "curl")], tmp_path, JIMS_API_KEY=key))
    assert answer["assistant_messages"] == [ANSWER]
    program = example(report, "a2a", "Python")
    assert run([sys.executable, "-c", program], tmp_path, JIMS_API_KEY=key).strip() == ANSWER
    card = json.loads(run(["bash", "-c", example(report, "a2a", "card")], tmp_path))
    assert card["supportedInterfaces"][0]["url"] == f"{site.url}/a2a"


def test_the_example_for_ag_ui_is_answered(site: Site, tmp_path: Path) -> None:
    install(AGUI)
    (tmp_path / "node_modules").symlink_to(AGUI / "node_modules")
    report = found(site.url, site.keys["ann"])
    asked = (
        '\nagent.addMessage({ id: "1", role: "user", content: "Hello" });\nawait agent.runAgent({});\n'
        "console.log(agent.messages.at(-1).content);\n"
    )
    (tmp_path / "agent.mjs").write_text(example(report, "agui", "TypeScript") + asked)
    assert run([str(node()), "agent.mjs"], tmp_path, JIMS_API_KEY=site.keys["ann"]).strip() == ANSWER


class Attributes(HTMLParser):
    """Keeps the attributes of the first element."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: dict[str, str | None] = {}
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found = self.found or dict(attrs)


@pytest.mark.parametrize("who", ["all", "ann"])
def test_the_examples_for_pages_name_routes_that_answer(site: Site, who: str) -> None:
    report = found(site.url, site.keys[who])
    attribute = Attributes(example(report, "deepchat", "HTML")).found["connect"]
    assert attribute is not None
    settings = json.loads(attribute)
    headers = {name: value.replace("TOKEN", site.keys[who]) for name, value in settings["headers"].items()}
    body = {"messages": [{"role": "user", "text": "Hello"}], **settings["additionalBodyProps"]}
    answer = httpx.post(settings["url"], headers=headers, json=body, trust_env=False)
    assert answer.json() == {"text": ANSWER}
    address = re.search(r'api: ("[^"]+"),\n', example(report, "vercel", "React"))
    assert address is not None
    message = {"id": "1", "role": "user", "parts": [{"type": "text", "text": "Hello"}]}
    stream = httpx.post(
        json.loads(address[1]), headers=headers, json={"id": "1", "messages": [message]}, trust_env=False
    )
    assert ANSWER in "".join(re.findall(r'"delta":"([^"]*)"', stream.text))


@pytest.mark.parametrize("docs", ["public", "private", "off"])
def test_a_server_with_other_options_is_asked_as_it_is(docs: str) -> None:
    options = ("--without-plugin", "openai,agui", "--docs", docs, "--mcp-path", "/agents/mcp", "--mcp-tool", "ask")
    with Served(*SCRIPTED, *options) as served:
        report = found(served.url)
    assert report["access"] == "public"
    for name in ("openai", "agui"):
        assert report["protocols"][name]["served"] is False
        assert f"pip install 'jimsapi[{name}]'" in report["protocols"][name]["install"]
    mcp = report["protocols"]["mcp"]
    if docs == "off":  # nothing tells where it is
        assert mcp["served"] is False
    else:
        assert (mcp["url"], mcp["names"][0]) == (f"{served.url}/agents/mcp", "ask")
    assert "Authorization" not in json.dumps(report)
