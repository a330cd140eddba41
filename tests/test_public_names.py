"""First-party plugins import public names only. `private_imports.txt` lists the exceptions, and may only shrink."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from docs.house import PACKAGE, ROOT

PUBLIC = (
    "jimsapi",
    "jimsapi.asgi",
    "jimsapi.threads",
    "jimsapi.runs",
    "jimsapi.plugins",
    "jimsapi.wire",
    "jimsapi.testing",
    "jimsapi.client",
)
"""Packages whose `__all__` lists public names. A package without `__all__` has none."""

EXCEPTIONS = Path(__file__).with_name("private_imports.txt")
"""A line for each: the file, the module that it imports from, and the name."""


def plugin_files() -> list[Path]:
    """The code of every plugin in this repository, without its tests."""
    plugins = [path for path in ROOT.glob("plugins/*/*/**/*.py") if path.parts[len(ROOT.parts) + 2] != "tests"]
    return sorted([*plugins, *PACKAGE.glob("builtin/**/*.py")])


def public_names(package: str) -> set[str]:
    """What the `__all__` of a package lists."""
    text = ROOT.joinpath(*package.split("."), "__init__.py").read_text(encoding="utf-8")
    for node in ast.parse(text).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return set(ast.literal_eval(node.value))
    return set()


def names_imported(code: str) -> Iterator[tuple[str, str]]:
    """Module and name of every import from jimsapi, wherever in the code.

    The name is `*` for `import jimsapi.…`, which is never public: the names that are used cannot be seen. Relative
    imports are left out: they stay within the plugin.
    """
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            found = [(alias.name, "*") for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found = [(node.module or "", alias.name) for alias in node.names]
        else:
            continue
        yield from (each for each in found if each[0].split(".")[0] == "jimsapi")


def private_imports() -> set[str]:
    """What plugins import that is not public, in the form of the list."""
    public = {(package, name) for package in PUBLIC for name in public_names(package)}
    return {
        f"{path.relative_to(ROOT)} {module} {name}"
        for path in plugin_files()
        for module, name in names_imported(path.read_text(encoding="utf-8"))
        if (module, name) not in public and not is_own(path, module)
    }


def is_own(path: Path, module: str) -> bool:
    """Whether a file of the built-in plugins imports another of them."""
    return PACKAGE in path.parents and module.startswith("jimsapi.builtin")


def test_plugins_import_public_names_only() -> None:
    listed = set(EXCEPTIONS.read_text(encoding="utf-8").splitlines())
    found = private_imports()
    assert found - listed == set(), "import these from a package whose `__all__` lists them"
    assert listed - found == set(), f"nothing needs these any more: remove them from {EXCEPTIONS.name}"


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("from jimsapi.runs.service import RunService as Service", [("jimsapi.runs.service", "RunService")]),
        ("def late():\n    from jimsapi import App, hookimpl", [("jimsapi", "App"), ("jimsapi", "hookimpl")]),
        ("import os, jimsapi.cli.main as cli", [("jimsapi.cli.main", "*")]),
        ("from . import routes\nfrom .wire import read\nfrom jimsapi_openai import wire", []),
    ],
)
def test_every_form_of_import_is_seen(code: str, expected: list[tuple[str, str]]) -> None:
    assert list(names_imported(code)) == expected


def test_the_code_of_every_plugin_is_read() -> None:
    folders = {path.relative_to(ROOT).parts[:2] for path in plugin_files()}
    assert folders == {("jimsapi", "builtin"), *((p.parts[-2:]) for p in ROOT.glob("plugins/j*"))}
