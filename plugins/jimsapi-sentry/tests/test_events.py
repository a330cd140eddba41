"""What reaches Sentry of runs that fail: through the real command, and through `create_api`."""

import gc
import logging
import socket
import weakref
from typing import Any

import pytest
import sentry_sdk
from jimsapi_sentry.events import PipelineCall

from jimsapi import JSONResponse, Request, ThreadContext, create_api
from jimsapi.asgi.testing import TestClient
from tests.serving import STEERED, Served

pytestmark = pytest.mark.anyio

CHAT = "/api/v1/chat"
SAID = "my-number-is-0700-1234"
CONTACT = "ann@example.org"
KEY = "key-of-the-operator"
COOKIE = "cookie-of-ann"
BODY = {"contact_id": CONTACT, "message": f"raise {SAID}"}
HEADERS = {"authorization": f"Bearer {KEY}", "cookie": f"session={COOKIE}", "x-request-id": "request-1"}


def frames_of(event: dict[str, Any]) -> list[dict[str, Any]]:
    """The frames of the error that was raised."""
    frames: list[dict[str, Any]] = event["exception"]["values"][-1]["stacktrace"]["frames"]
    return frames


def test_a_failed_run_is_one_event_with_its_traceback_release_and_ids(sentry: Any) -> None:
    env = {"SENTRY_DSN": sentry.dsn, "SENTRY_RELEASE": "bot@7", "SENTRY_ENVIRONMENT": "staging"}
    with Served("--enable-sentry", "--api-key", KEY, env=env) as server, server.client(headers=HEADERS) as client:
        good = client.post(CHAT, json={**BODY, "message": "hi"}).json()
        answer = client.post(CHAT, json=BODY)
        assert answer.status_code == 500
        assert server.stop() == 0  # what was not sent yet is sent now

    [event] = sentry.payloads("event")
    assert sentry.payloads("transaction") == []  # no rate was set
    assert event["exception"]["values"][-1]["type"] == "RuntimeError"
    assert [frame["function"] for frame in frames_of(event)][-1] == "steered"
    assert "raise RuntimeError(argument)" in frames_of(event)[-1]["context_line"]
    assert event["logentry"] == {"message": "run %s: the pipeline failed"}
    assert (event["release"], event["environment"]) == ("bot@7", "staging")
    assert event["tags"]["request_id"] == "request-1"
    assert event["tags"]["thread_id"] == good["thread_id"]
    assert event["tags"]["pipeline"] == "steered"
    assert len(event["tags"]["run_id"]) == 36


def test_nothing_that_people_said_and_no_secret_is_in_what_is_sent(sentry: Any) -> None:
    env = {"SENTRY_DSN": sentry.dsn, "SENTRY_TRACES_SAMPLE_RATE": "1"}
    with Served("--enable-sentry", "--api-key", KEY, env=env) as server, server.client(headers=HEADERS) as client:
        for command in ("remember", "raise", "exit", "unstorable"):
            client.post(f"{CHAT}?token=query-of-ann", json={**BODY, "message": f"{command} {SAID}"})
        client.delete(f"/api/v1/contacts?contact_id={CONTACT}")
        server.stop()

    assert len(sentry.payloads("event")) == 3
    assert len(sentry.payloads("transaction")) == 5
    for secret in (SAID, CONTACT, KEY, COOKIE, "query-of-ann", "Bearer", "--api-key"):
        assert secret not in sentry.text
    for event in [*sentry.payloads("event"), *sentry.payloads("transaction")]:
        assert not {"breadcrumbs", "extra", "modules", "request", "user"} & event.keys()
    assert '"vars"' not in sentry.text


async def fails_aloud(ctx: ThreadContext) -> None:
    """A pipeline that logs what it then raises, and more besides."""
    log = logging.getLogger("bot")
    log.error("nobody answers to %s", SAID)
    log.error(f"nobody answers to {SAID}")  # noqa: G004 # as people write it
    try:
        raise LookupError(SAID)
    except LookupError:
        log.exception(f"cannot find {SAID}")  # noqa: G004 # as people write it
        raise


async def test_a_pipeline_that_logs_what_it_raises_is_one_event_without_the_log_s_text(
    sentry: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SENTRY_DSN", sentry.dsn)
    async with TestClient(create_api(fails_aloud, store="memory:", enable_sentry=True)) as client:
        answer = await client.post(CHAT, json=BODY)
        assert answer.status_code == 500
        again = await client.post(CHAT, json=BODY)
        assert again.status_code == 500
    events = sentry.payloads("event")
    assert [event["exception"]["values"][-1]["type"] for event in events] == ["LookupError"] * 2
    assert len({event["tags"]["request_id"] for event in events}) == 2
    assert all(event["tags"]["thread_id"] for event in events)
    assert SAID not in sentry.text
    assert not sentry_sdk.get_client().is_active()  # the app has ended


async def test_what_may_be_personal_is_sent_when_the_operator_asks_for_it(
    sentry: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SENTRY_DSN", sentry.dsn)
    settings = {"store": "memory:", "enable_sentry": True, "sentry_personal_data": True}
    async with TestClient(create_api(fails_aloud, **settings)) as client:
        await client.post(CHAT, json=BODY, headers={"authorization": KEY})
    messages = [event for event in sentry.payloads("event") if "exception" not in event]
    [failure] = [event for event in sentry.payloads("event") if "exception" in event]
    assert len(messages) == 2
    assert failure["exception"]["values"][-1]["value"] == SAID
    assert KEY not in sentry.text
    assert not [frame for frame in frames_of(failure) if "vars" in frame]


async def test_a_text_of_megabytes_is_cut(sentry: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async def talks(ctx: ThreadContext) -> None:
        raise LookupError("x" * 3_000_000)

    monkeypatch.setenv("SENTRY_DSN", sentry.dsn)
    settings = {"store": "memory:", "enable_sentry": True, "sentry_personal_data": True}
    async with TestClient(create_api(talks, **settings)) as client:
        await client.post(CHAT, json=BODY)
    [event] = sentry.payloads("event")
    assert 1000 < len(event["exception"]["values"][-1]["value"]) < 10_000


async def test_a_second_address_that_a_variable_names_gets_nothing(
    sentry: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = type(sentry)()
    monkeypatch.setenv("SENTRY_DSN", sentry.dsn)
    monkeypatch.setenv("SENTRY_SPOTLIGHT", other.dsn)
    async with TestClient(create_api(fails_aloud, store="memory:", enable_sentry=True)) as client:
        await client.post(CHAT, json=BODY)
    other.close()
    assert len(sentry.payloads("event")) == 1
    assert other.envelopes == []


def test_an_error_that_was_reported_goes_with_its_last_user() -> None:
    """What holds it in a circle would keep its traceback, and all that hangs on that, until a garbage collection."""

    class Failure(Exception):
        pass

    call, error = PipelineCall({}), Failure()
    call.mark(error)
    assert call.is_first(error)
    assert not call.is_first(error)
    assert PipelineCall({}).is_first(error)  # it was raised again
    gone = weakref.ref(error)
    gc.disable()
    try:
        del error, call
        assert gone() is None
    finally:
        gc.enable()


def test_what_is_asked_for_holds_no_secret_either(sentry: Any) -> None:
    env = {"SENTRY_DSN": sentry.dsn, "JIMS_SENTRY_PERSONAL_DATA": "true", "JIMS_ENABLE_SENTRY": "true"}
    # The key comes first, since Sentry cuts long lists, the command line among them.
    options = ("--api-key", KEY, "--app", STEERED, "--store", "memory:", "--metrics-port", "0", "--port", "0")
    with Served(*options, "--host", "127.0.0.1", env=env) as server, server.client(headers=HEADERS) as client:
        client.post(f"{CHAT}?token=query-of-ann", json=BODY)
        server.stop()
    [event] = sentry.payloads("event")
    assert event["exception"]["values"][-1]["value"] == SAID
    for secret in (KEY, COOKIE, "query-of-ann", "--api-key", '"vars"'):
        assert secret not in sentry.text


async def test_an_error_of_the_server_itself_is_an_event_with_the_request_s_id(
    sentry: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SENTRY_DSN", sentry.dsn)
    api = create_api(fails_aloud, store="memory:", enable_sentry=True)

    @api.get("/broken", public=True)
    async def broken(request: Request) -> JSONResponse:
        raise ZeroDivisionError(SAID)

    async with TestClient(api) as client:
        answer = await client.get("/broken", headers={"x-request-id": "request-2"})
        assert answer.status_code == 500
    [event] = sentry.payloads("event")
    assert event["exception"]["values"][-1]["type"] == "ZeroDivisionError"
    assert event["tags"] == {"request_id": "request-2"}
    assert SAID not in sentry.text


async def test_a_pipeline_that_exits_is_an_event_that_names_its_thread(
    sentry: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def leaves(ctx: ThreadContext) -> None:
        raise SystemExit(SAID)

    monkeypatch.setenv("SENTRY_DSN", sentry.dsn)
    async with TestClient(create_api(leaves, store="memory:", enable_sentry=True)) as client:
        await client.post(CHAT, json=BODY)
    [event] = sentry.payloads("event")
    assert event["tags"]["thread_id"]
    assert event["tags"]["pipeline"] == "leaves"
    assert SAID not in sentry.text


async def test_a_sentry_that_never_answers_keeps_nobody_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sentry accepts connections and never answers. Requests are still answered, and the shutdown does not wait."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("SENTRY_DSN", f"http://0123456789abcdef@127.0.0.1:{silent.getsockname()[1]}/7")
        async with TestClient(create_api(fails_aloud, store="memory:", enable_sentry=True)) as client:
            for _ in range(150):  # more than fit into the client's queue
                answer = await client.post(CHAT, json=BODY)
                assert answer.json() == {"detail": f"Pipeline error: {SAID}"}
        assert not sentry_sdk.get_client().is_active()
