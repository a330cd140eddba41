"""The servers that `benchmarks.compare` compares, with the Python of the tests."""

from pathlib import Path

import pytest

from benchmarks import compare
from benchmarks.answers import check_chat
from benchmarks.compare import CASES, HERE, MEMORY, SQLITE, Case, Revision, checkout, slices, start, starts
from benchmarks.environments import ROOT
from benchmarks.serving import KEY, Server
from benchmarks.sheet import MEGABYTES, PER_PROCESSOR, RATE, SECONDS


@pytest.mark.parametrize("store", [MEMORY, SQLITE])
def test_a_server_of_a_checkout_answers_what_each_case_asks(store: str, tmp_path: Path) -> None:
    asked = {case.target for case in CASES.values() if case.store == store}
    with start(Case(next(iter(asked)), 1, store, pinned=False), Revision(HERE, ROOT), tmp_path) as server:
        check_chat("jimsapi", server)
        for target in asked:
            body = b'{"contact_id": "ann", "message": "hi"}' if target.script == "chat" else None
            headers = {"authorization": f"Bearer {KEY}", "content-type": "application/json"} if body else {}
            method = "GET" if body is None else "POST"
            assert server.ask(method, target.path, body, headers)[0] == target.status
        assert (tmp_path / "jims.db").exists() == (store == SQLITE)


def test_a_revision_that_git_does_not_know_is_reported() -> None:
    with pytest.raises(SystemExit, match="git cannot read nowhere"), checkout("nowhere"):
        pass


@pytest.mark.parametrize("number", [0, 1])
def test_the_ratio_is_that_of_the_second_revision_to_the_first(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    first, second = object.__new__(Server), object.__new__(Server)
    rates = {id(first): 200.0, id(second): 300.0}

    def figures(server: Server, **_: object) -> dict[str, float]:
        return dict.fromkeys((RATE, PER_PROCESSOR), rates[id(server)])

    monkeypatch.setattr(compare, "measure", figures)
    assert slices(CASES["get"], [first, second], number) == {RATE: 1.5, PER_PROCESSOR: 1.5}


def test_starts_are_compared_in_turn() -> None:
    found = starts([Revision(HERE, ROOT), Revision("the same", ROOT)], 1)
    assert {unit: len(ratios) for unit, ratios in found.items()} == {SECONDS: 1, MEGABYTES: 1}
    assert all(ratio > 0 for [ratio] in found.values())
