"""What the suites share. They need what the command needs, in the environment that runs them."""

import importlib.util

import pytest

if importlib.util.find_spec("jims_core") is None:
    raise pytest.UsageError(
        "the tests of jims-api-command need jims-core: run them where those of jimsapi-jims run, with "
        "pip install -e 'plugins/jims-api-command[test]' beside it"
    )
