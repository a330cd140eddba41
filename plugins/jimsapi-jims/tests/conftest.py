"""What the suites share. They need jims-core, and so Python 3.12 or newer, in the environment that runs them."""

import importlib.util
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.plugins.modules import load

os.environ.setdefault(
    "LITELLM_LOCAL_MODEL_COST_MAP", "True"
)  # these tests import jims-core before the plugin can set it

if importlib.util.find_spec("jims_core") is None or importlib.util.find_spec("aiosqlite") is None:
    raise pytest.UsageError(
        "the tests of jimsapi-jims need jims-core and aiosqlite: make an environment with Python >= 3.12 "
        "(tests/find_python.py names one), pip install -e '.[test]' -e plugins/jimsapi-authentik "
        "-e 'plugins/jimsapi-jims[test]' there, and run its pytest plugins/jimsapi-jims"
    )


for _name in ("find_python", "model_server", "jims"):
    load(Path(__file__).with_name(f"{_name}.py"))


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, str], None]]:
    """Writes a module into the current folder, first on the path; forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    written = []

    def write(name: str, text: str) -> None:
        (tmp_path / f"{name}.py").write_text(text)
        written.append(name)

    yield write
    for name in written:
        sys.modules.pop(name, None)
