"""What the suites share: the bundle as its sources are now, a bot that shows all that the page knows, and a browser."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import pytest

# Tests are collected by path, so that a helper beside them has to be put within reach.
sys.path.insert(0, str(Path(__file__).parent))

from person import Person, enter_key, new_key, person_at

from tests.clients.chromium import Chromium
from tests.serving import Served

PLUGIN = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session", autouse=True)
def bundle() -> Path:
    """The folder with the bundle of the page, which is made if its sources have changed."""
    command = [sys.executable, "setup.py", "--quiet", "build_frontend"]
    built = subprocess.run(command, cwd=PLUGIN, capture_output=True, text=True, timeout=300, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    return PLUGIN / "jimsapi_playground" / "static"


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    with Chromium(tmp_path_factory.mktemp("chromium")) as browser:
        yield browser


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server with the bot, which serves this machine."""
    files = tmp_path_factory.mktemp("files") / "files"
    with Served("--app", "showing:app", "--files-store", f"file://{files}", folder=PLUGIN / "tests") as server:
        yield server


@pytest.fixture(scope="session")
def key() -> str:
    """What opens the server that asks for a key."""
    return "the-key-of-the-playground"


@pytest.fixture(scope="session")
def guarded(key: str) -> Iterator[Served]:
    """A server that asks for a key."""
    with Served("--app", "showing:app", "--api-key", key, folder=PLUGIN / "tests") as server:
        yield server


@pytest.fixture
def contact() -> str:
    """A contact of the test's own."""
    return f"contact {uuid4()}"


@pytest.fixture
def person(browser: Chromium, site: Served, contact: str) -> Iterator[Person]:
    """A person at the page of the server that serves this machine."""
    with person_at(browser, site.url, contact=contact) as person:
        yield person


@pytest.fixture
def operator(browser: Chromium, guarded: Served, key: str) -> Iterator[Person]:
    """A person who has entered the key of the guarded server, as another contact than `contact`."""
    with person_at(browser, guarded.url, contact=f"operator {uuid4()}") as operator:
        enter_key(operator, key)
        yield operator


@pytest.fixture(scope="session")
def chats_only(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Served, str]]:
    """A server, and its key with the scope `chat` alone."""
    keys = tmp_path_factory.mktemp("keys") / "keys.json"
    key = new_key(keys, "website", "--scope", "chat")
    with Served("--app", "showing:app", "--keys-file", str(keys), folder=PLUGIN / "tests") as server:
        yield server, key


@pytest.fixture
def visitor(browser: Chromium, chats_only: tuple[Served, str], contact: str) -> Iterator[Person]:
    """A person who has entered a key for chats alone."""
    server, key = chats_only
    with person_at(browser, server.url, contact=contact) as visitor:
        enter_key(visitor, key)
        yield visitor


@pytest.fixture
def run_shell() -> Callable[[str], str]:
    """Runs a command in a shell and returns its output."""
    return lambda command: subprocess.check_output(["bash", "-c", command], text=True, timeout=30)
