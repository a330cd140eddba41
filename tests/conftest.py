"""What every suite shares."""

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clean_venv import FOLDERS_OF_PYTEST
from tests.heap import pytest_collection_finish  # noqa: F401 # the hook of every suite

# Under nohup the servers that tests start would ignore SIGHUP, too. A handler is not inherited.
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, lambda *_: None)


@pytest.fixture(autouse=True, scope="session")
def folder_of_inner_sessions(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A place for the folders of pytest in processes that tests start.

    At its end a session removes older folders beside its own. That takes minutes if they are those of whole suites.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(FOLDERS_OF_PYTEST, str(tmp_path_factory.mktemp("inner")))
        yield


@pytest.fixture
def anyio_backend() -> str:
    """The loop of async tests; a suite that runs on others too overrides it."""
    return "asyncio"


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current folder, first on the path, without `JIMS_*`; what a test imports from it is forgotten afterwards."""
    for variable in list(os.environ):
        if variable.startswith("JIMS_"):
            monkeypatch.delenv(variable)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", None)).startswith(str(tmp_path)):
            del sys.modules[name]
