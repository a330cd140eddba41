"""Pages in Chromium, that a route of a plugin serves."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.clients.chromium import Chromium
from tests.clients.conftest import KEY, SCRIPTED
from tests.clients.conversation import check_conversation, cut_short, messages
from tests.serving import Served


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    with Chromium(tmp_path_factory.mktemp("chromium")) as browser:
        yield browser


def converse(browser: Chromium, page: str, **scenario: Any) -> Any:
    return browser.evaluate(page, f"converse({json.dumps(scenario)})")


def test_a_page_converses_by_fetch_with_a_token_and_goes_on_where_it_was_cut(
    browser: Chromium, served: Served, headers: dict[str, str]
) -> None:
    sent = messages("page-fetch")
    with cut_short(served, "page-fetch", headers) as proxy:
        told = converse(browser, f"{proxy.url}/pages/fetch.html", headers=headers, contact="page-fetch", messages=sent)
        assert proxy.cut.is_set()
    check_conversation(served, told["turns"], sent, headers)


def test_a_page_converses_by_event_source_and_comes_back_by_itself(browser: Chromium, public: Served) -> None:
    sent = messages("page-events")
    with cut_short(public, "page-events", {}) as proxy:
        page = f"{proxy.url}/pages/event_source.html"
        told = converse(browser, page, url="", headers={}, contact="page-events", messages=sent, stay=True)
        assert proxy.cut.is_set()
    check_conversation(public, told["turns"], sent, {})
    assert told["settled"] == {"closed": True, "more": []}


def test_a_page_tells_the_error_of_a_run_from_a_lost_connection(browser: Chromium, public: Served) -> None:
    page = f"{public.url}/pages/event_source.html"
    told = converse(browser, page, url="", headers={}, contact="page-error", messages=["stream Hel; raise no"])
    [[started, delta, error]] = told["turns"]
    assert (started[0], delta[0]) == ("started", "delta")
    assert error == ["error", {"detail": "Pipeline error: no"}, "end"]


def test_a_page_of_another_origin_reads_answers_only_where_that_origin_is_allowed(
    browser: Chromium, public: Served, served: Served, folder: Path, headers: dict[str, str]
) -> None:
    def ask(url: str) -> Any:
        request = {
            "method": "POST",
            "headers": {**headers, "content-type": "application/json", "idempotency-key": "page"},
            "body": json.dumps({"contact_id": "page-cors", "message": "say hi"}),
        }
        read = "async answer => [answer.status, answer.headers.get('x-run-id') !== null]"
        script = f"fetch({json.dumps(url)}, {json.dumps(request)}).then({read}).catch(error => error.name)"
        return browser.evaluate(f"{public.url}/pages/fetch.html", script)

    with Served(*SCRIPTED, "--api-key", KEY, "--cors-origin", public.url, folder=folder) as api:
        assert ask(f"{api.url}/api/v1/chat") == [200, True]
    assert ask(f"{served.url}/api/v1/chat") == "TypeError"  # what fetch throws for an answer that it may not read
