"""The package `eventsource` of the npm registry, which comes back by itself after a cut."""

from pathlib import Path

from tests.clients.conversation import check_conversation, cut_short, messages
from tests.node import run_node
from tests.serving import Served

PROGRAM = Path(__file__).with_name("eventsource_package.mjs")


def test_a_conversation_of_three_turns_goes_on_where_it_was_cut(served: Served, headers: dict[str, str]) -> None:
    sent = messages("eventsource")
    with cut_short(served, "eventsource", headers) as proxy:
        told = run_node(PROGRAM, url=proxy.url, headers=headers, contact="eventsource", messages=sent, stay=True)
        assert proxy.cut.is_set()
    check_conversation(served, told["turns"], sent, headers)
    assert told["settled"] == {"closed": True, "more": []}


def test_the_error_of_a_run_is_told_from_a_lost_connection(served: Served, headers: dict[str, str]) -> None:
    told = run_node(
        PROGRAM, url=served.url, headers=headers, contact="eventsource-error", messages=["stream Hel; raise no"]
    )
    [[started, delta, error]] = told["turns"]
    assert (started[0], delta[0]) == ("started", "delta")
    assert error == ["error", {"detail": "Pipeline error: no"}, "end"]
