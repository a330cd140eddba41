"""The shipped data, and folders of CSV files of a test's own."""

from collections.abc import Callable
from pathlib import Path

import pytest

from examples.interests.graph import Graph
from examples.interests.tables import SHIPPED, Tables, read_tables

Folder = Callable[..., Path]


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the developer's shell says about data and models is no part of a test."""
    for variable in ("INTERESTS_DATA", "OPENAI_BASE_URL", "OPENAI_API_KEY", "OPENAI_MODEL"):
        monkeypatch.delenv(variable, raising=False)


@pytest.fixture(scope="session")
def tables() -> Tables:
    return read_tables(SHIPPED)


@pytest.fixture(scope="session")
def graph(tables: Tables) -> Graph:
    return Graph(tables)


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """Makes a folder of a small valid set; a keyword replaces a file's content, None leaves the file out."""

    def make(**files: str | bytes | None) -> Path:
        content: dict[str, str | bytes | None] = {
            "person": "person_id,person_name\np1,Ann Lee\np2,Bo Dahl\n",
            "interest": "interest_id,interest_name\ni1,Chess\ni2,Go\n",
            "person_has_interest": "person_id,interest_id\np1,i2\np1,i1\np2,i1\n",
        }
        for name, data in {**content, **files}.items():
            if data is not None:
                raw = data if isinstance(data, bytes) else data.encode()
                (tmp_path / f"{name}.csv").write_bytes(raw)
        return tmp_path

    return make
