"""Parsers of strangers' bytes, each with what was found before and with bytes made by chance."""

from pathlib import Path

import pytest

from tests.hostile import cases, targets
from tests.hostile.guided import search_by_chance
from tests.hostile.targets import SEEDS, TARGETS

RUNS = 300
KEPT = [(name, data) for name in TARGETS for data in (*SEEDS[name], *(c.data for c in cases.read(f"targets/{name}")))]


@pytest.mark.parametrize("target", TARGETS)
def test_a_parser_keeps_its_promises_whatever_it_is_given(target: str, tmp_path: Path) -> None:
    search_by_chance(target, RUNS, 1, str(tmp_path))


@pytest.mark.parametrize(("target", "data"), KEPT)
def test_a_parser_keeps_its_promises_for_kept_bytes(target: str, data: bytes) -> None:
    TARGETS[target](data)


def test_bytes_that_break_a_parser_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_seven(data: bytes) -> None:
        assert b"7" not in data

    monkeypatch.setitem(targets.TARGETS, "body", no_seven)
    with pytest.raises(AssertionError):
        search_by_chance("body", RUNS, 1, str(tmp_path))
    assert (tmp_path / "crash-body").read_bytes() == b"7"
