"""A caller's limits over HTTP: 429, when to come back, and what is left (draft-ietf-httpapi-ratelimit-headers-11)."""

import asyncio
import re
from pathlib import Path
from typing import Any

import httpx
import pytest

from jimsapi import ThreadContext, create_api
from jimsapi.api.app import Api
from jimsapi.asgi.testing import TestClient
from jimsapi.plugins.errors import StartError
from tests.plugins.distributions import install

pytestmark = pytest.mark.anyio

FIELDS = ("retry-after", "ratelimit", "ratelimit-policy")

CALLERS = """
from jimsapi import *

class Callers:
    name = "callers"

    async def authenticate(self, connection):
        name = connection.headers.get("x-caller")
        return Identity(name) if name else None

@hookimpl
def jimsapi_auth_provider():
    return Callers()
"""


class Bot:
    """A pipeline that can be held: `hold` waits, `raise` fails, everything else is echoed."""

    def __init__(self, **settings: Any) -> None:
        self.begun, self.may_end = asyncio.Event(), asyncio.Event()
        self.api: Api = create_api(self.answer, **{"store": "memory:", **settings})

    async def answer(self, ctx: ThreadContext) -> None:
        message = ctx.get_last_user_message()
        if message == "hold":
            self.begun.set()
            await self.may_end.wait()
        if message == "raise":
            raise RuntimeError("on purpose")
        ctx.send_message(f"You said: {message}")


async def say(
    client: httpx.AsyncClient, message: str = "hi", contact: str = "ann", caller: str | None = None
) -> httpx.Response:
    headers = {} if caller is None else {"x-caller": caller}
    return await client.post("/api/v1/chat", json={"contact_id": contact, "message": message}, headers=headers)


def fields(response: httpx.Response) -> list[str | None]:
    """`FIELDS`, with long times to the nearest hundred seconds: the clock is the real one."""
    return [
        None if name not in response.headers else _LONG.sub(_to_hundreds, response.headers[name]) for name in FIELDS
    ]


_LONG = re.compile(r"(?:(?<=t=)|^)\d{3,}")


def _to_hundreds(found: re.Match[str]) -> str:
    return str(round(int(found[0]), -2))


async def test_an_answer_says_what_is_left_and_a_refusal_when_to_come_back() -> None:
    async with TestClient(Bot(rate_limit="2/day").api) as client:
        answers = [await say(client) for _ in range(3)]
        events = await client.get("/api/v1/threads", params={"contact_id": "ann"})
    policy = '"contact";q=2;w=86400'
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert [fields(answer) for answer in answers] == [
        [None, '"contact";r=1;t=43200', policy],
        [None, '"contact";r=0;t=43200', policy],
        ["43200", '"contact";r=0;t=43200', policy],
    ]
    wait = answers[2].headers["retry-after"]
    assert answers[2].json() == {
        "detail": f"Too many messages of this contact: at most 2 per day; try again in {wait} s"
    }
    assert "x-run-id" not in answers[2].headers
    assert fields(events) == [None, None, None]


async def test_without_a_limit_no_answer_speaks_of_one() -> None:
    async with TestClient(Bot().api) as client:
        assert fields(await say(client)) == [None, None, None]


async def test_contacts_and_callers_are_counted_apart_and_their_limits_too(site: Path) -> None:
    install(site, "acme-callers", CALLERS)
    async with TestClient(Bot(rate_limit="1/day", identity_rate_limit="2/day").api) as client:
        statuses = [
            (await say(client, contact=contact, caller=caller)).status_code
            for caller, contact in [("shop", "ann"), ("shop", "ann"), ("shop", "ben"), ("desk", "ann"), ("desk", "ann")]
        ]
        invented = [await say(client, contact=f"invented {number}", caller="shop") for number in range(3)]
        stranger = await say(client)
        both = await say(client, contact="ann", caller="shop")
    assert statuses == [200, 429, 200, 200, 429]
    assert [answer.status_code for answer in invented] == [429, 429, 429]
    assert fields(invented[0]) == [
        "43200",
        '"identity";r=0;t=43200',
        '"contact";q=1;w=86400, "identity";q=2;w=86400',
    ]
    assert fields(both)[:2] == ["86400", '"contact";r=0;t=86400, "identity";r=0;t=43200']
    assert (stranger.status_code, fields(stranger)) == (401, [None, None, None])


async def test_open_runs_are_limited_and_a_place_is_free_once_its_run_has_ended() -> None:
    bot = Bot(contact_runs=1, identity_runs=2)
    async with TestClient(bot.api) as client:
        held = asyncio.create_task(say(client, "hold"))
        await bot.begun.wait()
        refused = await say(client)
        other = await say(client, contact="ben")
        bot.may_end.set()
        assert (await held).status_code == 200
        after = await say(client)
    policies = '"contact-runs";q=1;qu="concurrent-requests", "identity-runs";q=2;qu="concurrent-requests"'
    assert (refused.status_code, fields(refused)) == (429, ["1", '"contact-runs";r=0', policies])
    assert refused.json()["detail"].startswith(
        "Too many messages of this contact are being answered: at most 1 at once"
    )
    assert fields(other) == [None, '"contact-runs";r=1, "identity-runs";r=1', policies]
    assert (after.status_code, fields(after)) == (200, [None, '"contact-runs";r=1, "identity-runs";r=2', policies])


@pytest.mark.parametrize(("message", "status"), [("raise", 500), ("hold", 504)])
async def test_a_run_that_fails_takes_its_part_says_what_is_left_and_frees_its_place(message: str, status: int) -> None:
    async with TestClient(Bot(rate_limit="2/day", contact_runs=1, run_timeout=0.5).api) as client:
        failed = await say(client, message)
        assert (failed.status_code, (await say(client)).status_code) == (status, 200)
        refused = await say(client)
    assert fields(failed)[1] == '"contact";r=1;t=43200, "contact-runs";r=1'
    assert (refused.status_code, fields(refused)[1]) == (429, '"contact";r=0;t=43200')


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rate_limit": "60/fortnight"}, r"--rate-limit: '60/fortnight' is not a rate: give a number .* 60/min"),
        ({"identity_rate_limit": "0/s"}, r"--identity-rate-limit: '0/s' is not a rate"),
        ({"contact_runs": 0}, r"--contact-runs: 0 is not a whole number from 1"),
        ({"identity_runs": "many"}, r"--identity-runs: 'many' is not a whole number from 1"),
    ],
)
async def test_a_faulty_limit_stops_the_start(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(StartError, match=message):
        async with Bot(**settings).api.lifespan():
            pass
