"""Names of tests in texts: `tests/api/test_key.py::test_nobody_else_is_admitted`."""

import ast
import re
from functools import cache

from tests.serving import ROOT

NAME = re.compile(r"((?:plugins/[\w-]+/)?tests/[\w/]+\.py)::(test_\w+)")


def missing(names: list[tuple[str, str]]) -> list[str]:
    """Those of the tests that are not there."""
    return [f"{path}::{name}" for path, name in names if name not in _tests_in(path)]


@cache
def _tests_in(path: str) -> set[str]:
    if not (ROOT / path).is_file():
        return set()
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
