"""MCP's own client for Python, as a program that performs a scenario: see `mcp_clients.py`."""

import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import parse_qs, urlsplit

import anyio
import httpx2
from mcp import Client, MCPError
from mcp.client.auth import AuthorizationCodeResult, OAuthClientProvider
from mcp.client.streamable_http import streamable_http_client
from mcp.shared._httpx_utils import create_mcp_http_client  # the limits that the client has by itself
from mcp.shared.auth import OAuthClientInformationFull, OAuthClientMetadata, OAuthToken
from mcp_types import ElicitRequestFormParams, ElicitResult, Implementation
from pydantic import AnyUrl

CALLBACK = "http://127.0.0.1:9/callback"


def tell(**what: Any) -> None:
    """Write a line of what happens."""
    print(json.dumps(what), flush=True)


class Person:
    """Answers the questions of the server with `answers`, one after another. An answer of None never comes."""

    def __init__(self, answers: list[Any]) -> None:
        self._answers = iter(answers)

    async def answer(self, context: Any, params: Any) -> ElicitResult:
        """Answer one."""
        assert isinstance(params, ElicitRequestFormParams)
        tell(asked={"message": params.message, "requestedSchema": params.requested_schema})
        answer = next(self._answers)
        if answer is None:
            await anyio.sleep_forever()
        return ElicitResult.model_validate(answer)


class Browser(OAuthClientProvider):
    """Signs a person in, who agrees to everything. What the client gets is kept in memory."""

    def __init__(self, url: str) -> None:
        self._tokens: OAuthToken | None = None
        self._registration: OAuthClientInformationFull | None = None
        self._arrived_at = ""
        metadata = OAuthClientMetadata(redirect_uris=[AnyUrl(CALLBACK)], client_name="A client of the tests")
        super().__init__(url, metadata, self, self._visit, self._read_callback)

    async def _visit(self, url: str) -> None:
        async with httpx2.AsyncClient() as browser:
            self._arrived_at = (await browser.get(url)).headers["location"]

    async def _read_callback(self) -> AuthorizationCodeResult:
        query = parse_qs(urlsplit(self._arrived_at).query)
        return AuthorizationCodeResult(**{name: query[name][0] for name in ("code", "state", "iss") if name in query})

    async def get_tokens(self) -> OAuthToken | None:
        """The tokens so far."""
        return self._tokens

    async def set_tokens(self, tokens: OAuthToken) -> None:
        """Keep them."""
        self._tokens = tokens

    async def get_client_info(self) -> OAuthClientInformationFull | None:
        """The registration so far."""
        return self._registration

    async def set_client_info(self, client_info: OAuthClientInformationFull) -> None:
        """Keep it."""
        self._registration = client_info


@asynccontextmanager
async def connected(scenario: Any, browser: Browser | None) -> AsyncIterator[Client]:
    """A client as the scenario describes it."""
    url, answers = scenario["url"], scenario["answers"]
    async with create_mcp_http_client(headers=scenario["headers"], auth=browser) as http:
        client = Client(
            streamable_http_client(url, http_client=http),
            mode="legacy" if scenario["era"] == "legacy" else "auto",
            client_info=Implementation(name="tests", version="1"),
            elicitation_callback=None if answers is None else Person(answers).answer,
        )
        async with client:
            yield client


async def call(client: Client, step: Any) -> Any:
    """Call a tool, and cancel the call at a message of its progress if the step names one."""
    heard: list[Any] = []
    scope = anyio.CancelScope()

    async def progressed(progress: float, total: float | None, message: str | None) -> None:
        heard.append({"progress": progress, "message": message})
        tell(progress=heard[-1])
        if message is not None and message == step.get("cancel_at"):
            scope.cancel()

    try:
        with scope:
            callback = progressed if step.get("progress") else None
            result = await client.call_tool(step["call"], step["arguments"], progress_callback=callback)
            answer = result.model_dump(mode="json", by_alias=True, exclude_none=True)
            return {"progress": heard, "result": answer}
    except MCPError as error:
        return {"progress": heard, "error": {"code": error.error.code, "message": error.error.message}}
    return {"progress": heard, "cancelled": True}


def filled(step: Any, known: Any) -> Any:
    """A step with the values of an earlier result in place of `$run_id` and the like."""
    text = json.dumps(step)
    for name in ("run_id", "thread_id", "question_id", "uri"):
        text = text.replace(f"${name}", known.get(name, ""))
    return json.loads(text)


def learned(result: Any, known: Any) -> Any:
    """What `filled` knows after a result."""
    structured = result.get("result", {}).get("structuredContent") or {}
    questions, files = structured.get("questions") or [{}], structured.get("files") or [{}]
    return {**known, **structured, **questions[0], **files[0]}


async def perform(client: Client, step: Any) -> Any:
    """Do one step."""
    if "call" in step:
        return await call(client, step)
    if "read" in step:
        try:
            answer: Any = await client.read_resource(step["read"])
        except MCPError as error:
            return {"error": {"code": error.error.code, "message": error.error.message}}
    elif step["list"] == "tools":
        answer = await client.list_tools()
    elif step["list"] == "resources":
        answer = await client.list_resources()
    else:
        answer = await client.list_resource_templates()
    return answer.model_dump(mode="json", by_alias=True, exclude_none=True)


async def converse(scenario: Any, browser: Browser | None) -> None:
    """Connect, and do the steps."""
    async with connected(scenario, browser) as client:
        server = client.server_info
        name = None if server is None else server.name
        tell(connected={"version": client.protocol_version, "server": name, "instructions": client.instructions})
        known: Any = {}
        for step in scenario["steps"]:
            result = await perform(client, filled(step, known))
            known = learned(result, known)
            tell(step=result)


async def main(scenario: Any) -> None:
    """Perform a scenario. A token that was refused because it lacks a scope is replaced at the next connection."""
    if not scenario["sign_in"]:
        await converse(scenario, None)
        return
    browser = Browser(scenario["url"])
    try:
        await converse(scenario, browser)
    except* MCPError:
        await converse(scenario, browser)


if __name__ == "__main__":
    anyio.run(main, json.loads(sys.argv[1]))
