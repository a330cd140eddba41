"""Prints what is known about a server: as Markdown for people, or as JSON for programs."""

from collections.abc import Iterable, Iterator
from typing import Any

import click
import orjson

from jimsapi.cli.client_setup.access import AccessState, SignIn
from jimsapi.cli.client_setup.protocols import Endpoint
from jimsapi.cli.client_setup.snippets import KEY, Snippet, snippets_of
from jimsapi.cli.client_setup.survey import API, Survey
from jimsapi.cli.printing import allow_any_text, print_json
from jimsapi.cli.terminal.text import clean_line
from jimsapi.plugins.secrets import redact

TITLES = {
    "mcp": "MCP",
    "a2a": "A2A",
    "openai": "OpenAI's API",
    "agui": "AG-UI",
    "vercel": "Vercel's AI SDK",
    "deepchat": "Deep Chat",
}

_NAMES = {"mcp": "Tools", "a2a": "Agent", "openai": "Models"}

_URLS = {"a2a": "Agent card", "openai": "Base URL"}

_ACCESS = {
    AccessState.PUBLIC: "The server is open to everybody. It needs no key.",
    AccessState.KEY_ACCEPTED: f"The server accepts the key. The examples read it from the variable {KEY}.",
    AccessState.KEY_NEEDED: (
        "The server needs a key, and none was given: give one with --api-key-file, and this command checks it. The "
        f"examples read it from the variable {KEY}."
    ),
    AccessState.KEY_REFUSED: "The server refuses the key.",
    AccessState.FORBIDDEN: "The server lets this caller send no messages.",
    AccessState.UNAVAILABLE: "The server accepts no messages now.",
}


def print_report(survey: Survey) -> None:
    """Print everything for a person."""
    allow_any_text()
    click.echo(redact("\n".join(_lines(survey))))


def print_report_json(survey: Survey) -> None:
    """Print everything as a JSON object, on one line."""
    print_json(orjson.loads(redact(orjson.dumps(report_value(survey)).decode())))


def report_value(survey: Survey) -> dict[str, Any]:
    """Return everything as a value for JSON."""
    return {
        "url": survey.address.url,
        "access": survey.access.state.value,
        "is_bound_to_contact": survey.access.is_bound,
        "key_variable": KEY,
        "sign_in": _sign_in_value(survey.sign_in),
        "chat": {"url": survey.address.url + API, "examples": _examples(survey, "chat")},
        "protocols": {name: _protocol_value(survey, name, one) for name, one in survey.endpoints.items()},
        "problems": survey.all_problems,
        "notes": survey.notes,
    }


def _protocol_value(survey: Survey, name: str, endpoint: Endpoint) -> dict[str, Any]:
    if endpoint.url is None:
        return {"served": False, "install": _install(name), "problems": endpoint.problems}
    return {
        "served": True,
        "url": endpoint.url,
        "names": endpoint.names,
        **({"interfaces": endpoint.interfaces} if name == "a2a" else {}),
        "sign_in": _sign_in_value(endpoint.sign_in),
        "examples": _examples(survey, name),
        "problems": endpoint.problems,
    }


def _sign_in_value(sign_in: SignIn | None) -> dict[str, Any] | None:
    if sign_in is None:
        return None
    return {
        "metadata_url": sign_in.metadata_url,
        "authorization_servers": sign_in.authorization_servers,
        "scopes": sign_in.scopes,
    }


def _examples(survey: Survey, protocol: str) -> list[dict[str, str]]:
    found = snippets_of(survey, protocol)
    return [{"client": one.client, "language": one.language, "text": one.text} for one in found]


def _lines(survey: Survey) -> Iterator[str]:
    yield f"# {survey.address.url}"
    yield ""
    yield _ACCESS[survey.access.state]
    yield from _sign_in_lines(survey.sign_in)
    for note in survey.notes:
        yield ""
        yield f"Note: {clean_line(note)}."
    yield from _section("Chat API", [f"URL: {survey.address.url}{API}"], snippets_of(survey, "chat"))
    if survey.access.is_bound is None:
        yield ""
        yield "If your key is bound to one contact, omit `contact_id`."
    for name, endpoint in survey.endpoints.items():
        if endpoint.url is not None:
            yield from _section(TITLES[name], _facts(name, endpoint), snippets_of(survey, name))
    missing = [name for name, endpoint in survey.endpoints.items() if endpoint.url is None and not endpoint.problems]
    if missing:
        yield ""
        yield "## Not served"
        yield ""
        yield from (f"- {TITLES[name]}: {_install(name)}" for name in missing)


def _facts(name: str, endpoint: Endpoint) -> Iterator[str]:
    yield f"{_URLS.get(name, 'URL')}: {endpoint.url}"
    if endpoint.names:
        yield f"{_NAMES[name]}: {', '.join(map(clean_line, endpoint.names))}"
    for interface in endpoint.interfaces:
        yield f"Interface: {interface['protocolBinding']} {interface['protocolVersion']} at {interface['url']}"
    yield from _sign_in_lines(endpoint.sign_in)


def _sign_in_lines(sign_in: SignIn | None) -> Iterator[str]:
    if sign_in is not None:
        yield f"Clients can sign in with OAuth at {', '.join(map(clean_line, sign_in.authorization_servers))}"


def _section(title: str, facts: Iterable[str], snippets: Iterable[Snippet]) -> Iterator[str]:
    yield ""
    yield f"## {title}"
    yield ""
    yield from facts
    for snippet in snippets:
        yield ""
        yield f"{snippet.client}:"
        yield ""
        yield f"```{snippet.language}"
        yield snippet.text
        yield "```"


def _install(name: str) -> str:
    """What to do at the server to get a protocol."""
    return f"install the plugin beside the server: pip install 'jimsapi[{name}]'"
