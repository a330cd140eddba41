"""The servers that `benchmarks.beside` compares, with the Python of the tests."""

from pathlib import Path

import pytest

from benchmarks import beside
from benchmarks.answers import check_chat
from benchmarks.beside import CASES, Case, checkout, start
from benchmarks.environments import ROOT
from benchmarks.serving import KEY, Server
from benchmarks.sheet import PER_PROCESSOR, RATE


@pytest.mark.parametrize("store", ["memory", "sqlite"])
def test_a_server_of_a_checkout_answers_what_each_case_asks(store: str, tmp_path: Path) -> None:
    asked = {case.target for case in CASES.values() if case.store == store}
    with start(Case(next(iter(asked)), 1, store, pinned=False), ROOT, tmp_path) as server:
        check_chat("jimsapi", server)
        for target in asked:
            body = b'{"contact_id": "ann", "message": "hi"}' if target.script == "chat" else None
            headers = {"authorization": f"Bearer {KEY}", "content-type": "application/json"} if body else {}
            method = "GET" if body is None else "POST"
            assert server.ask(method, target.path, body, headers)[0] == target.status
        assert (tmp_path / "jims.db").exists() == (store == "sqlite")


def test_a_checkout_has_the_files_of_its_revision() -> None:
    with checkout("HEAD") as folder:
        assert (folder / "benchmarks" / "apps" / "echo.py").read_bytes()


def test_a_revision_that_git_does_not_know_is_reported() -> None:
    with pytest.raises(SystemExit, match="git cannot read nowhere"), checkout("nowhere"):
        pass


@pytest.mark.parametrize("other_first", [True, False])
def test_the_ratio_is_that_of_this_checkout_to_the_other(monkeypatch: pytest.MonkeyPatch, other_first: bool) -> None:
    ours, others = object.__new__(Server), object.__new__(Server)
    rates = {id(ours): 300.0, id(others): 200.0}

    def figures(server: Server, *_: object, **__: object) -> dict[str, float]:
        return dict.fromkeys((RATE, PER_PROCESSOR), rates[id(server)])

    monkeypatch.setattr(beside, "measure", figures)
    ratios = beside.slices(CASES["get"], ours, others, other_first=other_first)
    assert ratios == {RATE: 1.5, PER_PROCESSOR: 1.5}
