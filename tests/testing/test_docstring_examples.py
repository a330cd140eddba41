"""The example in the docstring of each contract works: it passes against the plugin of that name in docs/plugins.md."""

import ast
import inspect
import re
import textwrap
from pathlib import Path
from typing import Any

import pytest

import jimsapi.testing
from tests.docs.snippets import install, modules
from tests.testing.contract_run import run_pytest

PLUGINS = modules("docs/plugins.md")
CONTRACTS = [name for name in jimsapi.testing.__all__ if name.endswith("Contract")]

IMPORTS = """
import json
from contextlib import asynccontextmanager
from tempfile import TemporaryDirectory
from uuid import uuid4

import pytest
from jimsapi import Inbound
from jimsapi.testing import *
"""
OWN_IMPORTS = {
    "AppAdapterContract": "from jimsapi_script import Script\n",
    "ThreadStoreContract": """
from jimsapi.stores import SQLiteStore

class MyStore(SQLiteStore):
    def __init__(self, path):
        super().__init__(path)
        self.path = path
""",
}


def contract(name: str) -> Any:
    return getattr(jimsapi.testing, name)


def blocks(name: str) -> list[str]:
    """The indented blocks of a contract's docstring."""
    text = inspect.getdoc(contract(name)) or ""
    found = re.findall(r"(?:^    .*\n|^\n(?=    ))+", text, re.MULTILINE)
    return [textwrap.dedent(block).strip() + "\n" for block in found]


@pytest.mark.parametrize("name", CONTRACTS)
def test_the_example_of_a_contract_passes(name: str, tmp_path: Path) -> None:
    example = blocks(name)[0]
    for distribution in re.findall(r'distribution = "(\S+)"', example):
        module = distribution.replace("-", "_") + ".py"
        install(tmp_path, module, PLUGINS[module])
    (tmp_path / "test_it.py").write_text(IMPORTS + OWN_IMPORTS.get(name, "") + "\n\n" + example, encoding="utf-8")
    ran = run_pytest(tmp_path, env={"JIMSAPI_STORE_EXAMPLES": "3"})
    assert ran.returncode == 0, ran.stdout + ran.stderr


@pytest.mark.parametrize("name", CONTRACTS)
def test_every_declaration_of_an_example_is_one_of_the_contract(name: str) -> None:
    for block in blocks(name):
        code = block if block.startswith("class ") else f"class It:\n{textwrap.indent(block, '    ')}"
        [cls] = ast.parse(code).body
        assert isinstance(cls, ast.ClassDef)
        for node in cls.body:
            if isinstance(node, ast.Assign):
                declared = [target.id for target in node.targets if isinstance(target, ast.Name)]
            else:
                assert isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
                is_fixture = any("fixture" in ast.unparse(decorator) for decorator in node.decorator_list)
                declared = [] if is_fixture else [node.name]
            for attribute in declared:
                assert hasattr(contract(name), attribute), f"{name} has no {attribute}"
