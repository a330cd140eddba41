"""The image: what a linter finds in the Dockerfile, and what the builder gets. `tests.deploy.image` takes its steps."""

import re

from tests.deploy.image import DOCKERFILE, instructions, sent
from tests.deploy.tools import run_tool

PLUGINS = {"plugins/jimsapi-nats/", "plugins/jimsapi-postgres/"}


def test_the_linter_finds_no_fault() -> None:
    run_tool("hadolint", DOCKERFILE)


def test_the_base_image_has_a_version() -> None:
    bases = [argument.split()[0] for name, argument in instructions() if name == "FROM"]
    assert all(re.search(r":\d+\.\d+\.\d+", base) for base in bases)


def test_the_builder_gets_what_it_copies_and_nothing_that_may_be_secret() -> None:
    files = sent()
    assert {"setup.cfg", "jimsapi/py.typed", "deploy/app/bot.py"} <= files
    assert {f"{plugin}setup.cfg" for plugin in PLUGINS} <= files
    allowed = (
        ".dockerignore",
        "LICENSE",
        "README.md",
        "jimsapi/",
        "jimsapi_pytest.py",
        "pyproject.toml",
        "setup.cfg",
        "deploy/app/",
        *PLUGINS,
        "requirements/test.lock",
    )
    assert [path for path in files if not path.startswith(allowed)] == []
    assert [path for path in files if path.endswith((".db", ".key", ".pem", ".pyc"))] == []
    assert [path for path in files if path.startswith(tuple(f"{plugin}tests" for plugin in PLUGINS))] == []


def test_the_image_has_every_plugin_that_the_builder_gets() -> None:
    [command] = [argument for name, argument in instructions() if name == "RUN" and "./plugins/" in argument]
    assert {part.removeprefix("./") + "/" for part in command.split() if part.startswith("./plugins/")} == PLUGINS
