"""Transactions: one for each request, if a rate is set."""

from typing import Any

import pytest

from jimsapi import ThreadContext, create_api
from jimsapi.asgi.testing import TestClient
from tests.serving import Served

pytestmark = pytest.mark.anyio

CHAT = "/api/v1/chat"
TRACE = "0af7651916cd43dd8448eb211c80319c"


def test_a_request_is_a_transaction_named_by_its_route_with_a_span_for_its_pipeline(sentry: Any) -> None:
    env = {"SENTRY_DSN": sentry.dsn, "SENTRY_TRACES_SAMPLE_RATE": "1.0", "JIMS_ENABLE_SENTRY": "true"}
    headers = {"sentry-trace": f"{TRACE}-b7ad6b7169203331-1", "x-request-id": "request-1"}
    with Served(env=env) as server, server.client(headers=headers) as client:
        client.get("/healthz")
        good = client.post(CHAT, json={"contact_id": "ann", "message": "hi"}).json()
        client.post(CHAT, json={"contact_id": "ann", "message": "raise x"})
        client.get("/nowhere/ann@example.org")
        server.stop()
    transactions = sentry.payloads("transaction")
    assert [transaction["transaction"] for transaction in transactions] == [
        f"POST {CHAT}",
        f"POST {CHAT}",
        "GET unmatched",
    ]
    assert [transaction["contexts"]["trace"]["status"] for transaction in transactions] == [
        "ok",
        "internal_error",
        "not_found",
    ]
    for transaction in transactions:
        assert transaction["contexts"]["trace"]["trace_id"] == TRACE
        assert transaction["tags"]["request_id"] == "request-1"
    for transaction in transactions[:2]:
        [span] = transaction["spans"]
        assert span["description"] == "jims.run_pipeline_with_context"
        assert span["data"]["jims.thread.id"] == good["thread_id"]
        assert span["data"]["jims.pipeline"] == "steered"
    [event] = sentry.payloads("event")
    assert event["contexts"]["trace"]["trace_id"] == TRACE
    assert "transaction" not in event  # its name is not known yet
    assert "ann@example.org" not in sentry.text


async def test_a_method_that_a_caller_invented_names_no_transaction(
    sentry: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SENTRY_DSN", sentry.dsn)
    monkeypatch.setenv("SENTRY_TRACES_SAMPLE_RATE", "1")

    async def answer(ctx: ThreadContext) -> None:
        ctx.send_message("hi")

    async with TestClient(create_api(answer, store="memory:", enable_sentry=True)) as client:
        assert (await client.request("ANN-0700-1234", CHAT)).status_code == 405
    [transaction] = sentry.payloads("transaction")
    assert transaction["transaction"].split(" ")[0] == "HTTP"
    assert "ANN" not in sentry.text


async def test_requests_at_once_have_transactions_of_their_own(sentry: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import asyncio

    monkeypatch.setenv("SENTRY_DSN", sentry.dsn)
    monkeypatch.setenv("SENTRY_TRACES_SAMPLE_RATE", "1")
    together = asyncio.Barrier(5)

    async def answer(ctx: ThreadContext) -> None:
        await together.wait()
        ctx.send_message("hi")

    async with TestClient(create_api(answer, store="memory:", enable_sentry=True)) as client:
        answers = await asyncio.gather(
            *(client.post(CHAT, json={"contact_id": f"c{n}", "message": "hi"}) for n in range(5))
        )
    threads = {answer.json()["thread_id"] for answer in answers}
    transactions = sentry.payloads("transaction")
    assert len({transaction["contexts"]["trace"]["trace_id"] for transaction in transactions}) == 5
    assert {transaction["spans"][0]["data"]["jims.thread.id"] for transaction in transactions} == threads
    assert all(len(transaction["spans"]) == 1 for transaction in transactions)
