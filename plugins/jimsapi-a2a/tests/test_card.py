"""The agent card: what it says of the agent, where its URLs point, and how callers sign in."""

import json
from datetime import timedelta
from email.utils import format_datetime, parsedate_to_datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from a2a_calls import VERSION, text_message
from jimsapi_a2a.card import PATH, security_scheme

from jimsapi import JimsApp, ThreadContext, create_api
from jimsapi.asgi.testing import TestClient
from jimsapi.runs import Skill

pytestmark = pytest.mark.anyio


async def pipeline(ctx: ThreadContext) -> None:
    ctx.send_message("Hello")


async def response_of(app: Any = pipeline, *, headers: dict[str, str] | None = None, **settings: Any) -> httpx.Response:
    async with TestClient(create_api(app, store="memory:", **settings)) as client:
        return await client.get(PATH, headers=headers)


async def card_of(app: Any = pipeline, **settings: Any) -> dict[str, Any]:
    answer = await response_of(app, **settings)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def test_the_card_has_all_that_the_specification_requires() -> None:
    card = await card_of()
    assert {
        "name", "description", "version", "supportedInterfaces", "capabilities", "defaultInputModes",
        "defaultOutputModes", "skills",
    } <= card.keys()  # fmt: skip
    assert [one["protocolBinding"] for one in card["supportedInterfaces"]] == ["JSONRPC", "HTTP+JSON"]
    assert {one["protocolVersion"] for one in card["supportedInterfaces"]} == {"1.0"}
    assert card["capabilities"]["streaming"] is True
    assert all(skill["id"] and skill["name"] and skill["description"] and skill["tags"] for skill in card["skills"])
    assert "securitySchemes" not in card


async def test_the_app_says_what_it_is() -> None:
    skills = [
        Skill("Refund an order", "Pays money back.", tags=["money"], examples=["Refund order 7"]),
        Skill("B", "b", id="x"),
    ]
    card = await card_of(JimsApp(pipeline, name="shop", description="Sells shoes.", skills=skills))
    assert (card["name"], card["description"]) == ("shop", "Sells shoes.")
    assert card["skills"] == [
        {
            "id": "refund-an-order",
            "name": "Refund an order",
            "description": "Pays money back.",
            "tags": ["money"],
            "examples": ["Refund order 7"],
        },
        {"id": "x", "name": "B", "description": "b", "tags": ["chat"]},
    ]


async def test_options_override_the_app(tmp_path: Path) -> None:
    skills = [{"id": "a", "name": "A", "description": "a", "tags": ["t"], "inputModes": ["text/plain"]}]
    (tmp_path / "skills.json").write_text(json.dumps(skills))
    card = await card_of(
        JimsApp(pipeline, name="shop", description="Sells shoes.", skills=[Skill("B", "b")]),
        a2a_name="store",
        a2a_description="Sells hats.",
        a2a_version="2.1",
        a2a_skills=tmp_path / "skills.json",
        a2a_provider="Hats Ltd",
        a2a_provider_url="https://hats.example",
        a2a_documentation_url="https://hats.example/docs?page=1",
        a2a_icon_url="https://hats.example/icon.png",
    )
    assert (card["name"], card["description"], card["version"], card["skills"]) == (
        "store",
        "Sells hats.",
        "2.1",
        skills,
    )
    assert card["provider"] == {"organization": "Hats Ltd", "url": "https://hats.example"}
    assert card["documentationUrl"] == "https://hats.example/docs?page=1"
    assert card["iconUrl"] == "https://hats.example/icon.png"


async def test_the_urls_are_those_that_the_client_reached() -> None:
    answer = await response_of(headers={"host": "bot.example:8443"})
    assert {one["url"] for one in answer.json()["supportedInterfaces"]} == {"http://bot.example:8443/a2a"}
    fixed = await response_of(headers={"host": "evil.example"}, a2a_url="https://bot.example/agents/")
    assert {one["url"] for one in fixed.json()["supportedInterfaces"]} == {"https://bot.example/agents/a2a"}
    assert "evil" not in fixed.text


async def test_a_url_of_the_card_answers() -> None:
    async with TestClient(create_api(pipeline, store="memory:")) as client:
        card = (await client.get(PATH)).json()
        for interface in card["supportedInterfaces"]:
            url = interface["url"]
            if interface["protocolBinding"] == "JSONRPC":
                body = {"jsonrpc": "2.0", "id": 1, "method": "SendMessage", "params": text_message("hi")}
                answer = await client.post(url, json=body, headers=VERSION)
            else:
                answer = await client.post(f"{url}/message:send", json=text_message("hi"), headers=VERSION)
            assert (answer.status_code, "Hello" in answer.text) == (200, True)


async def test_the_card_may_be_kept_until_it_changes() -> None:
    first = await response_of()
    assert "max-age=" in first.headers["cache-control"]
    tag = first.headers["etag"]
    for known in (f'"other", {tag}', f"W/{tag}", "*"):
        again = await response_of(headers={"if-none-match": known})
        assert (again.status_code, again.content) == (304, b"")
    changed = await response_of(headers={"if-none-match": tag}, a2a_version="3")
    assert changed.status_code == 200


async def test_a_client_that_knows_only_the_time_of_the_card_is_told_that_it_is_the_same() -> None:
    async with TestClient(create_api(pipeline, store="memory:")) as client:
        first = await client.get(PATH)
        time = first.headers["last-modified"]
        again = await client.get(PATH, headers={"if-modified-since": time})
        assert (again.status_code, again.content, again.headers["last-modified"]) == (304, b"", time)
        later = format_datetime(parsedate_to_datetime(time) + timedelta(days=1), usegmt=True)
        for headers in ({"if-modified-since": later}, {"if-modified-since": time, "if-none-match": '"other"'}):
            assert (await client.get(PATH, headers=headers)).json() == first.json()


async def test_callers_learn_how_to_sign_in() -> None:
    card = await card_of(api_key=["a-key-that-is-long-enough"])
    [(name, scheme)] = card["securitySchemes"].items()
    assert scheme["httpAuthSecurityScheme"]["scheme"] == "Bearer"
    assert card["securityRequirements"] == [{"schemes": {name: {"list": []}}}]
    assert "long-enough" not in json.dumps(card)


@pytest.mark.parametrize(
    ("scheme", "expected"),
    [
        (
            {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
            {"httpAuthSecurityScheme": {"scheme": "Bearer", "bearerFormat": "JWT"}},
        ),
        (
            {"type": "apiKey", "in": "header", "name": "X-Key"},
            {"apiKeySecurityScheme": {"location": "header", "name": "X-Key"}},
        ),
        (
            {"type": "openIdConnect", "openIdConnectUrl": "https://i.example/.well-known/openid-configuration"},
            {"openIdConnectSecurityScheme": {"openIdConnectUrl": "https://i.example/.well-known/openid-configuration"}},
        ),
        (
            {"type": "oauth2", "flows": {"implicit": {}, "clientCredentials": {"tokenUrl": "t", "scopes": {}}}},
            {"oauth2SecurityScheme": {"flows": {"clientCredentials": {"tokenUrl": "t", "scopes": {}}}}},
        ),
        ({"type": "mutualTLS", "description": "d"}, {"mtlsSecurityScheme": {"description": "d"}}),
    ],
)
async def test_each_kind_of_scheme_has_its_form(scheme: dict[str, Any], expected: dict[str, Any]) -> None:
    assert security_scheme(scheme) == expected


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"a2a_url": "bot.example"}, "--a2a-url"),
        ({"a2a_url": "https://bot.example/?a=1"}, "--a2a-url"),
        ({"a2a_provider": "Hats"}, "--a2a-provider-url"),
        ({"a2a_icon_url": "javascript:alert(1)"}, "--a2a-icon-url"),
        ({"a2a_skills": "missing.json"}, "missing.json"),
    ],
)
async def test_a_faulty_option_stops_the_start(settings: dict[str, Any], reason: str) -> None:
    with pytest.raises(Exception, match=reason):
        await card_of(**settings)


@pytest.mark.parametrize(
    ("skills", "reason"),
    [
        ("{}", "JSON list"),
        ("[]", "JSON list"),
        ("[", "cannot read"),
        ('[{"id": "a"}]', "needs name"),
        ("[1]", "needs id"),
    ],
)
async def test_a_faulty_file_of_skills_stops_the_start(tmp_path: Path, skills: str, reason: str) -> None:
    (tmp_path / "skills.json").write_text(skills)
    with pytest.raises(Exception, match=reason):
        await card_of(a2a_skills=tmp_path / "skills.json")
