"""The texts that a person pastes into a client. None has the key: each reads the variable `KEY`, or asks for it."""

import html
import json
import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from jimsapi.cli.client_setup.access import AccessState
from jimsapi.cli.client_setup.protocols import Endpoint
from jimsapi.cli.client_setup.survey import Survey

KEY = "JIMS_API_KEY"
"""The environment variable that the examples read the key from. `jimsapi chat` and `jimsapi connect` read it, too."""

_MODEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,99}")


@dataclass(frozen=True)
class Snippet:
    """A text for one client. `language` is the name that Markdown has for it."""

    client: str
    language: str
    text: str


@dataclass(frozen=True)
class Setup:
    """What the texts for a protocol are made of."""

    url: str
    name: str
    """How clients call the server: letters, digits and hyphens."""
    sends_key: bool
    survey: Survey
    endpoint: Endpoint | None = None

    def bearer(self, variable: str) -> dict[str, str]:
        """Return the header with the key, for a client that puts the value in place of `variable`."""
        return {"Authorization": f"Bearer {variable}"} if self.sends_key else {}

    @property
    def curl_key(self) -> str:
        """The option of curl with the key, with a space before it; empty if no key is sent."""
        return f' -H "Authorization: Bearer ${KEY}"' if self.sends_key else ""


def server_name(survey: Survey) -> str:
    """Return how clients call a server: after its agent or model, in letters that every client accepts."""
    names = [*survey.endpoints["a2a"].names, *survey.endpoints["openai"].names, "jimsapi"]
    slugs = (re.sub("[^a-z0-9]+", "-", name.lower()).strip("-")[:40].strip("-") for name in names)
    return next(slug for slug in slugs if slug)


def snippets_of(survey: Survey, protocol: str) -> list[Snippet]:
    """Return the texts for the clients of a protocol that the server serves; `chat` is the chat API."""
    endpoint = survey.endpoints.get(protocol)
    is_public = survey.access.state is AccessState.PUBLIC
    signs_in = endpoint is not None and endpoint.sign_in is not None
    url = survey.address.url if endpoint is None else endpoint.url
    assert url is not None
    setup = Setup(url, server_name(survey), not (is_public or signs_in), survey, endpoint)
    return _SNIPPETS[protocol](setup)


def _chat(setup: Setup) -> list[Snippet]:
    contact = {} if setup.survey.access.is_bound else {"contact_id": "me"}
    body = shlex.quote(json.dumps({**contact, "message": "Hello"}))
    url = shlex.quote(f"{setup.url}/api/v1/chat")
    curl = f'curl {url} -H "Content-Type: application/json"{setup.curl_key} -d {body}'
    return [
        Snippet("curl", "sh", curl),
        Snippet("A chat in this terminal", "sh", f"jimsapi chat --url {shlex.quote(setup.url)}"),
    ]


def _mcp(setup: Setup) -> list[Snippet]:
    header = f' --header "Authorization: Bearer ${KEY}"' if setup.sends_key else ""
    add = f"claude mcp add --transport http {setup.name} {shlex.quote(setup.url)}{header}"
    return [
        Snippet("Claude Code, in a terminal", "sh", add),
        Snippet("Claude Code and others, in .mcp.json", "json", _servers(setup, f"${{{KEY}}}", {"type": "http"})),
        Snippet("Cursor, in ~/.cursor/mcp.json", "json", _servers(setup, f"${{env:{KEY}}}", {})),
        Snippet("VS Code, in .vscode/mcp.json", "json", _vs_code(setup)),
        Snippet("Claude Desktop, in claude_desktop_config.json", "json", _claude_desktop(setup)),
    ]


def _servers(setup: Setup, variable: str, fields: dict[str, Any]) -> str:
    return _json({"mcpServers": {setup.name: {**fields, "url": setup.url, **_headers(setup, variable)}}})


def _vs_code(setup: Setup) -> str:
    """VS Code asks for the key once, and keeps it in its own store of secrets."""
    asked = {"type": "promptString", "id": "jims-api-key", "description": "The key of the server", "password": True}
    server = {"type": "http", "url": setup.url, **_headers(setup, "${input:jims-api-key}")}
    inputs = {"inputs": [asked]} if setup.sends_key else {}
    return _json({**inputs, "servers": {setup.name: server}})


def _claude_desktop(setup: Setup) -> str:
    """Its file has only programs. The program `mcp-remote` connects to a server; Node runs it."""
    arguments = ["-y", "mcp-remote", setup.url, "--transport", "http-only"]
    if setup.url.startswith("http://"):
        arguments.append("--allow-http")
    server: dict[str, Any] = {"command": "npx", "args": arguments}
    if setup.sends_key:
        # A space in an argument would be lost on Windows.
        arguments += ["--header", "Authorization:${AUTHORIZATION}"]
        server["env"] = {"AUTHORIZATION": "Bearer YOUR_KEY"}
    return _json({"mcpServers": {setup.name: server}})


def _headers(setup: Setup, variable: str) -> dict[str, Any]:
    return {"headers": setup.bearer(variable)} if setup.sends_key else {}


def _a2a(setup: Setup) -> list[Snippet]:
    key = f"""f"Bearer {{os.environ['{KEY}']}}\""""
    headers = f'headers={{"Authorization": {key}}}, ' if setup.sends_key else ""
    lines = [
        "import asyncio",
        *(["import os"] if setup.sends_key else []),
        "from uuid import uuid4",
        "",
        "import httpx",
        "from a2a.client import ClientConfig, ClientFactory",
        "from a2a.types import Message, Part, Role, SendMessageRequest",
        "",
        "",
        "async def main():",
        f"    async with httpx.AsyncClient({headers}timeout=60) as http:",
        "        factory = ClientFactory(ClientConfig(httpx_client=http, streaming=False))",
        f"        client = await factory.create_from_url({json.dumps(setup.survey.address.url)})",
        '        message = Message(message_id=str(uuid4()), role=Role.ROLE_USER, parts=[Part(text="Hello")])',
        "        async for event in client.send_message(SendMessageRequest(message=message)):",
        "            print(event.task.artifacts[0].parts[0].text)",
        "",
        "",
        "asyncio.run(main())",
    ]
    return [
        Snippet("The agent card, for clients that ask for its URL", "sh", f"curl {shlex.quote(setup.url)}"),
        Snippet("Python, with the package a2a-sdk", "python", "\n".join(lines)),
    ]


def _openai(setup: Setup) -> list[Snippet]:
    names = [] if setup.endpoint is None else setup.endpoint.names
    model = next((name for name in names if _MODEL.fullmatch(name)), setup.name)
    key = f'"${KEY}"' if setup.sends_key else "unused"
    environment = f"export OPENAI_BASE_URL={shlex.quote(setup.url)}\nexport OPENAI_API_KEY={key}"
    in_python = f'os.environ["{KEY}"]' if setup.sends_key else '"unused"'
    user = "" if setup.survey.access.is_bound else ', user="me"'
    lines = [
        *(["import os", ""] if setup.sends_key else []),
        "from openai import OpenAI",
        "",
        f"client = OpenAI(base_url={json.dumps(setup.url)}, api_key={in_python})",
        'messages = [{"role": "user", "content": "Hello"}]',
        f"answer = client.chat.completions.create(model={json.dumps(model)}{user}, messages=messages)",
        "print(answer.choices[0].message.content)",
    ]
    return [
        Snippet("Programs that read the environment", "sh", environment),
        Snippet("Python, with the package openai", "python", "\n".join(lines)),
    ]


def _agui(setup: Setup) -> list[Snippet]:
    headers = f", headers: {{ Authorization: `Bearer ${{process.env.{KEY}}}` }}" if setup.sends_key else ""
    text = (
        'import { HttpAgent } from "@ag-ui/client";\n\n'
        f"const agent = new HttpAgent({{ url: {json.dumps(setup.url)}{headers} }});"
    )
    return [Snippet("TypeScript, with @ag-ui/client", "ts", text)]


def _vercel(setup: Setup) -> list[Snippet]:
    headers = "\n    headers: () => ({ Authorization: `Bearer ${token}` })," if setup.sends_key else ""
    text = (
        'import { useChat } from "@ai-sdk/react";\n'
        'import { DefaultChatTransport } from "ai";\n\n'
        "const { messages, sendMessage } = useChat({\n"
        f"  transport: new DefaultChatTransport({{\n    api: {json.dumps(setup.url)},{headers}\n  }}),\n}});"
    )
    return [Snippet("React, with @ai-sdk/react; `token` is the visitor's own", "tsx", text)]


def _deepchat(setup: Setup) -> list[Snippet]:
    contact = {} if setup.survey.access.is_bound else {"contact_id": "me"}
    connect = {
        "url": setup.url,
        **_headers(setup, "TOKEN"),
        "stream": True,
        "additionalBodyProps": {"chat_id": "1", **contact},
    }
    attribute = html.escape(json.dumps(connect)).replace("&quot;", '"')
    text = f"<deep-chat connect='{attribute}'></deep-chat>"
    return [Snippet("HTML; TOKEN is the visitor's own", "html", text)]


_SNIPPETS: dict[str, Callable[[Setup], list[Snippet]]] = {
    "chat": _chat,
    "mcp": _mcp,
    "a2a": _a2a,
    "openai": _openai,
    "agui": _agui,
    "vercel": _vercel,
    "deepchat": _deepchat,
}


def _json(value: Any) -> str:
    return json.dumps(value, indent=2)
