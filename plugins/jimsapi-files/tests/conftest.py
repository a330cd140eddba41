"""What the suites share: a server with a folder for files, and requests to it."""

import sys
from pathlib import Path
from typing import Any

import pytest

# Tests are collected by path, so that a helper beside them has to be put within reach.
sys.path.insert(0, str(Path(__file__).parent))

from tests.plugins.talking import bot, client, people

__all__ = ["bot", "client", "people"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder of the file store. It does not exist before the server starts."""
    return tmp_path / "files"


@pytest.fixture
def options() -> dict[str, Any]:
    """More options of the server; a test that needs some overrides it."""
    return {}


@pytest.fixture
def settings(folder: Path, options: dict[str, Any]) -> dict[str, Any]:
    """The options of `client`'s server."""
    return {"files_store": f"file://{folder}", **options}
