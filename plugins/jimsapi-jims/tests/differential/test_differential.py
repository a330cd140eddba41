"""jims-api 0.6.2 and jimsapi with the same app answer the same requests alike, but for the listed differences."""

import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass

import pytest

from differential.corpus import CORPUS, Exchange
from differential.differences import DIFFERENCES, LEFT_OUT, PARTS, Difference
from differential.exchange import Answer, Talk
from differential.servers import KEY, Authentik, Servers, jims_api_python

LISTED = {request: difference for difference in DIFFERENCES for request in difference.requests}

Answers = dict[str, list[Answer]]
"""What a server answered to each request, by the request's name; one for each copy."""


@dataclass(frozen=True)
class Both:
    """The answers of jims-api (`there`) and of jimsapi (`here`), and whether jimsapi served on afterwards."""

    there: Answers
    here: Answers
    here_serves_on: bool


@pytest.fixture(scope="session")
def both(tmp_path_factory: pytest.TempPathFactory) -> Both:
    """Start both in each of their configurations, and send each the whole corpus, once a session."""
    folder = tmp_path_factory.mktemp("differential")
    python = jims_api_python(folder / "environment")

    with Authentik() as authentik, ExitStack() as stack:
        options = {
            "public": [],
            "locked": ["--api-key", KEY, "--authentik-url", authentik.url, "--authentik-app-slug", "bot"],
            "half": ["--authentik-app-slug", "bot"],
            "empty": ["--api-key", ""],
            "twice": ["--api-key", "old-key", "--api-key", KEY],
        }
        there = Servers(str(python), "jims_api.main:main", [], options, folder / "there")
        here = Servers(sys.executable, "jimsapi.cli:main", ["jims_core.app"], options, folder / "here")
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(stack.enter_context, (there, here)))
            talks = [Talk(there.ports), Talk(here.ports)]
            answers = list(pool.map(lambda talk: {one.name: talk.answers(one) for one in CORPUS}, talks))
        there.await_end("public")  # the last request ends it
        return Both(answers[0], answers[1], here.serves("public"))


def test_each_request_of_the_corpus_has_a_name_of_its_own_and_each_difference_has_requests() -> None:
    names = [exchange.name for exchange in CORPUS]
    listed = [request for difference in DIFFERENCES for request in difference.requests]
    assert len(set(names)) == len(names) >= 150
    assert len(set(listed)) == len(listed)
    assert set(listed) <= set(names)
    assert all(difference.requests for difference in DIFFERENCES if difference not in LEFT_OUT)
    assert all(difference.why for difference in DIFFERENCES)


@pytest.mark.parametrize("exchange", CORPUS, ids=lambda exchange: exchange.name)
def test_both_answer_alike_but_for_the_listed_differences(both: Both, exchange: Exchange) -> None:
    there, here = both.there[exchange.name], both.here[exchange.name]
    if exchange.name in LISTED:
        assert there != here, "it no longer differs: take it out of differences.py"
    else:
        assert here == there


@pytest.mark.parametrize("difference", DIFFERENCES, ids=lambda difference: difference.what)
def test_a_difference_is_the_one_that_is_described(both: Both, difference: Difference) -> None:
    for request in difference.requests:
        for side, answers in ((difference.there, both.there[request]), (difference.here, both.here[request])):
            assert {answer.status for answer in answers} == {side.status}, request
            assert all(side.body in answer.body for answer in answers), (request, answers[0].body[:500])


@pytest.mark.parametrize("kind", ["", "stream: "])
def test_messages_at_once_in_one_thread_each_see_all_before_them(both: Both, kind: str) -> None:
    def said(answers: Answers) -> list[str]:
        bodies = [answer.body for answer in answers[f"{kind}messages at once in one thread"]]
        return sorted(body.partition(" said so far")[0].rpartition('"')[2] for body in bodies)

    assert said(both.here) == ["3", "5", "7", "9"]
    assert said(both.there) != said(both.here)


def test_first_messages_at_once_of_one_contact_make_one_thread(both: Both) -> None:
    def threads(answers: Answers) -> int:
        bodies = [answer.body for answer in answers["first messages of one contact at once"]]
        return len({body.partition(",")[0] for body in bodies})

    assert threads(both.here) == 1
    assert threads(both.there) > 1


def test_what_a_pipeline_says_after_its_client_left_is_kept_by_ours_alone(both: Both) -> None:
    (there,), (here,) = (answers["what a client that left finds later"] for answers in (both.there, both.here))
    assert "worth the wait" in here.body
    assert "worth the wait" not in there.body


def test_a_pipeline_that_exits_ends_the_other_server_and_not_ours(both: Both) -> None:
    assert both.here_serves_on


def test_differences_of_a_part_have_names_of_their_own() -> None:
    for part in PARTS.values():
        assert len({difference.what for difference in part}) == len(part)
