"""What models were used for: what the routes show of it, and budgets that refuse messages."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from jimsapi import ThreadContext, create_api
from jimsapi.asgi.testing import TestClient
from jimsapi.plugins.errors import StartError
from tests.plugins.distributions import install

pytestmark = pytest.mark.anyio

# Admits the caller that the request names. A name with a dash is bound to the contact after the dash.
CALLERS = """
from jimsapi import Identity, hookimpl

class Callers:
    name = "acme"

    async def authenticate(self, request):
        name = request.headers.get("x-caller")
        if name is None:
            return None
        return Identity(name, contact_id=name.partition("-")[2] or None)

@hookimpl
def jimsapi_auth_provider():
    return Callers()
"""


async def spend(ctx: ThreadContext) -> None:
    """Use the tokens and dollars of the message, such as `m 10 0.5`."""
    match (ctx.get_last_user_message() or "").split():
        case [model, tokens, *cost]:
            ctx.usage(model=model, input_tokens=int(tokens), output_tokens=0, cost=float(cost[0]) if cost else None)
    if "fail" in (ctx.get_last_user_message() or ""):
        raise RuntimeError("on purpose")
    ctx.send_message("Done")


def api(store: str = "memory:", **settings: Any) -> TestClient:
    return TestClient(create_api(spend, store=store, **settings))


async def say(
    client: TestClient, message: str = "hi", contact: str = "ann", caller: str = "shop", path: str = "chat"
) -> httpx.Response:
    body = {"contact_id": contact, "message": message}
    return await client.post(f"/api/v1/{path}", json=body, headers={"x-caller": caller})


async def usage(client: TestClient, caller: str = "shop", **query: str) -> httpx.Response:
    return await client.get("/api/v1/usage", params=query, headers={"x-caller": caller})


def figures(calls: int, tokens: int, cost: float) -> dict[str, Any]:
    return {"calls": calls, "input_tokens": tokens, "output_tokens": 0, "cached_tokens": 0, "cost": cost}


def limits_of(answer: httpx.Response) -> tuple[str, str]:
    """The limits of an answer and what is left of them, without times."""
    return answer.headers["ratelimit-policy"], re.sub(r";t=\d+", "", answer.headers["ratelimit"])


@pytest.fixture
def callers(site: Path) -> None:
    install(site, "acme-callers", CALLERS)


@pytest.mark.usefixtures("callers")
@pytest.mark.parametrize("store", ["memory:", "sqlite"])
async def test_usage_is_shown_by_thread_contact_and_caller(store: str, tmp_path: Path) -> None:
    async with api(store if store == "memory:" else f"sqlite:///{tmp_path / 'jims.db'}") as client:
        today = datetime.now(UTC).date().isoformat()
        thread_id = (await say(client, "a 10 0.5")).json()["thread_id"]
        await say(client, "b 5 0.25 fail")
        await say(client, "a 1 0.125", "bob")
        await say(client, "a 100 1", caller="desk")
        of_thread = await client.get(f"/api/v1/threads/{thread_id}/usage", headers={"x-caller": "shop"})
        of_contact = await usage(client, contact_id="ann")
        of_caller = await usage(client, provider="acme", subject="shop")
        of_both = await usage(client, contact_id="bob", provider="acme", subject="shop")
        of_nobody = await usage(client, contact_id="ann", last_day="2001-01-01")
    models = [{"model": "a", **figures(2, 110, 1.5)}, {"model": "b", **figures(1, 5, 0.25)}]
    assert of_thread.json() == {"total": figures(3, 115, 1.75), "models": models}
    if datetime.now(UTC).date().isoformat() == today:
        assert of_contact.json() == {
            "first_day": (datetime.fromisoformat(today) - timedelta(days=29)).date().isoformat(),
            "last_day": today,
            "total": figures(3, 115, 1.75),
            "models": models,
            "days": [{"day": today, **model} for model in models],
        }
    assert of_caller.json()["total"] == figures(3, 16, 0.875)
    assert of_both.json()["total"] == figures(1, 1, 0.125)
    assert (of_nobody.json()["total"], of_nobody.json()["days"]) == (figures(0, 0, 0.0), [])


@pytest.mark.usefixtures("callers")
async def test_a_caller_that_is_bound_sees_only_what_was_used_for_its_contact() -> None:
    async with api() as client:
        await say(client, "a 10", caller="phone-ann")
        await say(client, "a 1", "bob")
        own = await usage(client, "phone-ann")
        refused = [
            await usage(client, "phone-ann", contact_id="bob"),
            await usage(client, "phone-ann", contact_id="bob", provider="acme", subject="shop"),
        ]
        of_another_caller = await usage(client, "phone-ann", provider="acme", subject="shop")
    assert own.json()["total"]["input_tokens"] == 10
    assert [answer.status_code for answer in refused] == [403, 403]
    assert of_another_caller.json()["total"] == figures(0, 0, 0.0)


@pytest.mark.usefixtures("callers")
@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({}, "contact_id"),
        ({"subject": "shop"}, "provider"),
        ({"provider": "acme", "contact_id": "ann"}, "subject"),
        ({"contact_id": "\0"}, "contact_id"),
        ({"contact_id": "ann", "first_day": "yesterday"}, "first_day"),
        ({"contact_id": "ann", "first_day": "2026-02-01", "last_day": "2026-01-01"}, "first_day"),
        ({"contact_id": "ann", "first_day": "2020-01-01", "last_day": "2026-01-01"}, "first_day"),
    ],
)
async def test_a_faulty_query_is_422(query: Mapping[str, str], field: str) -> None:
    async with api() as client:
        answer = await usage(client, **query)
    assert (answer.status_code, [fault["loc"][-1] for fault in answer.json()["detail"]]) == (422, [field])


@pytest.mark.usefixtures("callers")
async def test_a_budget_is_stated_and_refuses_when_it_is_used_up() -> None:
    async with api(token_budget="100/day", cost_budget="2.50/month") as client:
        answers = [await say(client, message) for message in ("m 60 0.5", "m 60 0.5", "hi")]
        others = [await say(client, contact="bob"), await say(client, caller="desk")]
    policy = '"tokens";q=100;w=86400;qu="tokens", "cost";q=2500000;w=2678400;qu="microdollars"'
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert [limits_of(answer) for answer in answers] == [
        (policy, '"tokens";r=40, "cost";r=2000000'),
        (policy, '"tokens";r=0, "cost";r=1500000'),
        (policy, '"tokens";r=0, "cost";r=1500000'),
    ]
    wait = answers[2].headers["retry-after"]
    assert answers[2].json() == {
        "detail": f"The budget of this contact is used up: 100 tokens per day; try again in {wait} s"
    }
    assert 1 <= int(wait) <= 86_400
    assert f"t={wait}" in answers[2].headers["ratelimit"]
    assert [answer.status_code for answer in others] == [200, 200]


@pytest.mark.usefixtures("callers")
@pytest.mark.parametrize("path", ["chat", "chat/stream", "runs"])
async def test_every_way_to_send_a_message_is_refused(path: str) -> None:
    async with api(cost_budget="0.50/day") as client:
        assert (await say(client, "m 1 0.75 fail")).status_code == 500
        refused = await say(client, path=path)
        events = await usage(client, contact_id="ann")
    assert refused.status_code == 429
    assert refused.json()["detail"].startswith("The budget of this contact is used up: 0.5 US dollars per day")
    assert events.json()["total"]["calls"] == 1


@pytest.mark.usefixtures("callers")
async def test_the_deletion_of_a_contact_does_not_begin_a_new_budget_for_a_caller_that_is_bound_to_it() -> None:
    async with api(token_budget="10/day") as client:
        for caller, status in (("phone-ann", 429), ("shop", 200)):
            await say(client, "m 10", caller=caller)
            assert (await say(client, caller=caller)).status_code == 429
            deleted = await client.delete(
                "/api/v1/contacts", params={"contact_id": "ann"}, headers={"x-caller": caller}
            )
            assert deleted.status_code == 204
            assert (await usage(client, contact_id="ann")).json()["days"] == []
            assert (await say(client, caller=caller)).status_code == status, caller


@pytest.mark.usefixtures("callers")
@pytest.mark.parametrize("store", ["memory:", "sqlite"])
async def test_a_repeated_message_gets_its_answer_although_it_has_used_up_the_budget(
    store: str, tmp_path: Path
) -> None:
    async with api(
        store if store == "memory:" else f"sqlite:///{tmp_path / 'jims.db'}", token_budget="10/day"
    ) as client:
        body, headers = {"contact_id": "ann", "message": "m 10"}, {"x-caller": "shop", "idempotency-key": "one"}
        answers = [await client.post("/api/v1/chat", json=body, headers=headers) for _ in range(2)]
        refused = await client.post("/api/v1/chat", json=body, headers={**headers, "idempotency-key": "two"})
        used = await usage(client, contact_id="ann")
    assert [answer.status_code for answer in answers] == [200, 200]
    assert answers[0].json() == answers[1].json()
    assert refused.status_code == 429
    assert used.json()["total"]["calls"] == 1


@pytest.mark.usefixtures("callers")
async def test_a_message_that_a_budget_refuses_does_not_count_against_the_rate_limit() -> None:
    async with api(token_budget="10/day", rate_limit="3/day") as client:
        await say(client, "m 10")
        for _ in range(5):
            assert limits_of(await say(client))[1] == '"tokens";r=0'
        assert (await say(client, contact="bob")).status_code == 200


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"token_budget": "1000"}, r"--token-budget: '1000' is not a budget: give a number of tokens .* 1000000/day"),
        ({"token_budget": "0/day"}, r"--token-budget: '0/day' is not a budget"),
        ({"token_budget": "10/s"}, r"--token-budget: '10/s' is not a budget"),
        ({"cost_budget": "5"}, r"--cost-budget: '5' is not a budget: give US dollars, .* 5/day"),
        ({"cost_budget": "0.0000001/day"}, r"--cost-budget: '0.0000001/day' is not a budget"),
        ({"cost_budget": "-5/day"}, r"--cost-budget: '-5/day' is not a budget"),
    ],
)
async def test_a_faulty_budget_stops_the_start(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(StartError, match=message):
        async with create_api(spend, store="memory:", **settings).lifespan():
            pass


async def test_metrics_have_the_tokens_of_a_bounded_number_of_models() -> None:
    served = create_api(spend, store="memory:")
    async with TestClient(served) as client:
        for number in range(60):
            await say(client, f"m{number} 7 0.5")
        text = served.metrics()
    assert 'jims_model_tokens_total{kind="input",model="m1"} 7.0' in text
    assert 'jims_model_cost_dollars_total{model="m1"} 0.5' in text
    assert 'jims_model_tokens_total{kind="input",model="other"} 70.0' in text
    assert 'jims_model_calls_total{model="other"} 10.0' in text
    assert 'model="m55"' not in text
