"""Who may enter: any provider can admit, none can veto; what each says decides how the others' refusal looks."""

import copy
import dataclasses
import logging
import pickle
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from jimsapi import Identity, JSONResponse, ThreadContext, create_api
from jimsapi.api.admission import LOG_EVERY
from jimsapi.asgi.testing import TestClient
from jimsapi.runs.admission import Admission
from tests.plugins.distributions import install

pytestmark = pytest.mark.anyio

DOORS = """
import door_words
from jimsapi import *

class Door:
    def __init__(self, name):
        self.name = name
        self.challenge = {"b": "Blue", "c": 'Bearer realm="c"', "d": ""}.get(name)

    async def authenticate(self, connection):
        word = connection.headers.get("x-" + self.name)
        door_words.asked.append(self.name)
        return door_words.say(word)

@hookimpl
def jimsapi_auth_provider():
    return Door("NAME")
"""

WORDS = """
import asyncio
from jimsapi import *

asked = []

def say(word):
    match word:
        case None: return None
        case "in": return Identity("somebody")
        case "bound": return Identity("ann", contact_id="ann")
        case "reader": return Identity("reader", scopes=["threads"])
        case "clerk": return Identity("clerk", scopes=["desk"])
        case "nothing": return Identity("nothing", scopes=())
        case "invalid": raise InvalidCredentials("sesame")
        case "denied": raise AccessDenied("sesame")
        case "unavailable": raise AuthUnavailable("the directory is away")
        case "timeout": raise TimeoutError("sesame")
        case "exit": raise SystemExit(3)
        case "cancel": raise asyncio.CancelledError
        case "rubbish": return True
        case "text": return "somebody"
"""


@pytest.fixture
def doors(site: Path) -> Path:
    (site / "door_words.py").write_text(WORDS)
    for name in ("b", "c", "d"):
        install(site, f"acme-{name}", DOORS.replace("NAME", name))
    return site


async def echo(ctx: ThreadContext) -> None:
    ctx.send_message("hi")


async def ask(headers: dict[str, str], **settings: Any) -> Any:
    async with TestClient(create_api(echo, store="memory:", **settings)) as client:
        return await client.post("/api/v1/chat", json={"contact_id": "ann", "message": "hi"}, headers=headers)


@pytest.mark.parametrize(
    ("b", "c", "status"),
    [
        (None, None, 401),
        ("in", None, 200),
        (None, "in", 200),
        ("invalid", None, 401),
        ("invalid", "in", 200),
        ("invalid", "invalid", 401),
        ("denied", "in", 200),
        ("denied", None, 403),
        ("denied", "invalid", 403),
        ("invalid", "denied", 403),
        ("denied", "unavailable", 403),
        ("unavailable", "denied", 403),
        ("unavailable", "in", 200),
        ("unavailable", None, 503),
        ("unavailable", "invalid", 503),
        ("invalid", "unavailable", 503),
        ("timeout", None, 503),
        ("timeout", "in", 200),
        ("timeout", "denied", 403),
        ("exit", None, 503),
        ("cancel", None, 503),
        ("cancel", "in", 200),
        ("rubbish", None, 503),
        ("rubbish", "in", 200),
        ("text", "invalid", 503),
    ],
)
async def test_the_first_identity_admits_else_denied_else_unavailable_else_unauthorized(
    doors: Path, b: str | None, c: str | None, status: int
) -> None:
    headers = {f"x-{name}": word for name, word in (("b", b), ("c", c)) if word is not None}
    answer = await ask(headers)
    assert answer.status_code == status, answer.text
    assert ("www-authenticate" in answer.headers) is (status == 401)
    assert ("retry-after" in answer.headers) is (status == 503)
    assert "sesame" not in answer.text


DESK = """
from jimsapi import *

@hookimpl
def jimsapi_routes(router):
    @router.get("/desk", scope="desk")
    async def desk(request):
        return JSONResponse({})
"""


@pytest.mark.parametrize(("word", "desk", "threads"), [("in", 200, 200), ("clerk", 200, 403), ("nothing", 403, 403)])
async def test_an_identity_without_scopes_has_every_scope_also_those_of_plugins(
    doors: Path, word: str, desk: int, threads: int
) -> None:
    install(doors, "acme-desk", DESK)
    async with TestClient(create_api(echo, store="memory:"), headers={"x-b": word}) as client:
        assert (await client.get("/desk")).status_code == desk
        assert (await client.get("/api/v1/threads?contact_id=ann")).status_code == threads


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"subject": None}, "subject of an identity must be a str, not NoneType"),
        ({"subject": 5}, "subject of an identity must be a str, not int"),
        ({"subject": "ann", "contact_id": 5}, "contact_id must be a str or None, not int"),
        ({"subject": "ann", "scopes": "chat"}, "scopes must be a collection"),
    ],
)
def test_an_identity_of_wrong_types_is_refused(arguments: dict[str, Any], error: str) -> None:
    with pytest.raises(TypeError, match=error):
        Identity(**arguments)


async def test_a_401_offers_every_challenge_and_says_what_was_wrong_with_a_bearer(doors: Path) -> None:
    answer = await ask({}, api_key="k")
    assert answer.headers["www-authenticate"] == 'Bearer realm="jimsapi", Blue, Bearer realm="c"'
    answer = await ask({"x-b": "invalid", "x-c": "invalid"}, api_key="k")
    assert answer.headers["www-authenticate"] == 'Bearer realm="jimsapi", Blue, Bearer realm="c", error="invalid_token"'
    answer = await ask({"authorization": "Bearer wrong"}, api_key="k")
    assert answer.headers["www-authenticate"].startswith('Bearer realm="jimsapi", error="invalid_token", Blue')


@pytest.mark.parametrize(
    ("order", "expected"),
    [(None, ["b", "c", "d"]), ("d", ["d", "b", "c"]), ("d, key ,b", ["d", "b", "c"]), ("c,b,d,key", ["c", "b", "d"])],
)
async def test_providers_are_asked_by_distribution_or_in_the_operator_s_order(
    doors: Path, order: str | None, expected: list[str]
) -> None:
    import door_words  # type: ignore[import-not-found] # written by the fixture

    served = create_api(echo, store="memory:", api_key="k", auth_order=order)
    async with TestClient(served) as client:
        assert (await client.get("/api/v1/threads?contact_id=ann")).status_code == 401
        assert served.composition is not None
        names = [built.name for built in served.composition.providers]
    assert door_words.asked == expected
    if order is None:
        assert names == ["key", "b", "c", "d"]
    elif order.startswith("d, key"):
        assert names == ["d", "key", "b", "c"]


async def test_after_an_identity_nobody_else_is_asked(doors: Path) -> None:
    import door_words

    assert (await ask({"x-b": "in", "x-c": "denied"})).status_code == 200
    assert door_words.asked == ["b"]


async def test_the_key_and_authentik_come_first_whatever_their_distributions_are_called(doors: Path) -> None:
    install(doors, "zzz-sso", DOORS.replace("NAME", "authentik"))
    served = create_api(echo, store="memory:", api_key="k")
    async with served.lifespan():
        assert served.composition is not None
        assert [built.name for built in served.composition.providers] == ["key", "authentik", "b", "c", "d"]


async def test_an_identity_reaches_no_further_than_its_contact_and_its_scopes(doors: Path) -> None:
    async with TestClient(create_api(echo, store="memory:")) as client:
        body = {"contact_id": "ben", "message": "hi"}
        assert (await client.post("/api/v1/chat", json=body, headers={"x-b": "bound"})).status_code == 403
        assert (await client.post("/api/v1/chat", json={"message": "hi"}, headers={"x-b": "bound"})).status_code == 200
        refused = await client.post("/api/v1/chat", json=body, headers={"x-b": "reader"})
        assert (refused.status_code, "chat" in refused.text) == (403, True)
        assert (await client.get("/api/v1/threads?contact_id=ben", headers={"x-b": "reader"})).status_code == 200


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/openapi.json", "/docs"])
async def test_public_routes_ask_nobody(doors: Path, path: str) -> None:
    import door_words

    async with TestClient(create_api(echo, store="memory:", api_key="k")) as client:
        assert (await client.get(path)).status_code == 200
        assert (await client.get("/nowhere")).status_code == 404
        assert (await client.get("/api/v1/chat")).status_code == 405
    assert door_words.asked == []


async def test_a_public_server_admits_everybody_and_says_so_loudly(
    site: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        assert (await ask({})).status_code == 200
    assert "NO AUTHENTICATION IS CONFIGURED: the API is public" in caplog.text


async def test_a_provider_that_is_away_is_told_of_once_in_a_while_and_not_for_each_stranger(
    doors: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    async with TestClient(create_api(echo, store="memory:")) as client:
        for _ in range(30):
            assert (await client.get("/api/v1/threads", headers={"x-b": "unavailable"})).status_code == 503
        now += LOG_EVERY
        await client.get("/api/v1/threads", headers={"x-b": "unavailable"})
    told = [record.getMessage() for record in caplog.records if record.name == "jimsapi.auth"]
    assert told == [
        "auth provider b is unavailable: the directory is away",
        "auth provider b is unavailable: the directory is away (29 more like it since the last such line)",
    ]


async def test_credentials_that_a_provider_quotes_do_not_reach_the_log(
    site: Path, caplog: pytest.LogCaptureFixture
) -> None:
    install(
        site,
        "quotes",
        """
        from jimsapi import *

        class Quotes:
            name = "quotes"
            async def authenticate(self, connection):
                kinds = {"a": InvalidCredentials, "b": AccessDenied, "c": AuthUnavailable}
                headers = connection.headers
                raise kinds[headers.get("x-kind")]("nobody knows " + headers.get("authorization"))

        @hookimpl
        def jimsapi_auth_provider():
            return Quotes()
        """,
    )
    caplog.set_level(logging.DEBUG, "jimsapi")
    async with TestClient(create_api(echo, store="memory:")) as client:
        for kind in "abc":
            await client.get("/api/v1/threads", headers={"authorization": "Bearer sesame", "x-kind": kind})
    assert caplog.text.count("nobody knows …") == 3
    assert "sesame" not in caplog.text


def test_an_admission_can_be_answered_copied_and_handed_to_another_process() -> None:
    admission = Admission(Identity("ann"), "key", "jimsapi", "1.0")
    told = b'{"identity":{"subject":"ann","contact_id":null,"scopes":null},'
    assert JSONResponse(admission).body == told + b'"provider":"key","distribution":"jimsapi","version":"1.0"}'
    assert copy.deepcopy(admission) == pickle.loads(pickle.dumps(admission)) == admission


def test_claims_are_for_pipelines_and_no_text_shows_them() -> None:
    plain = Identity("ann", contact_id="ann", scopes=("chat",))
    claiming = plain.with_claims({"name": "Ann Elk"})
    assert (plain.claims, claiming.claims) == ({}, {"name": "Ann Elk"})
    assert (claiming.subject, claiming.contact_id, claiming.scopes) == ("ann", "ann", ("chat",))
    assert claiming.may("chat")
    assert not claiming.may("threads")
    admission = Admission(claiming, "key", "jimsapi", "1.0")
    plain_body = JSONResponse(Admission(plain, "key", "jimsapi", "1.0")).body
    assert JSONResponse(admission).body == plain_body
    assert msgspec.json.encode(admission) == msgspec.json.encode(Admission(plain, "key", "jimsapi", "1.0"))
    assert "Elk" not in repr(admission) + str(dataclasses.asdict(admission))
    assert copy.deepcopy(claiming).claims == pickle.loads(pickle.dumps(claiming)).claims == {}


def test_claims_do_not_change_with_the_mapping_that_they_came_from() -> None:
    claims = {"name": "Ann"}
    identity = Identity("ann").with_claims(claims)
    claims["name"] = "Bob"
    assert identity.claims == {"name": "Ann"}
    with pytest.raises(TypeError):
        identity.claims["name"] = "Bob"  # type: ignore[index]
