"""First-party plugins import public names only, and every public name is documented."""

import ast
import importlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from docs.house import PACKAGE, ROOT
from docs.names import PAGE, PUBLIC, described, page, public_names

PUBLIC_NAMES = {(package, name) for package in PUBLIC for name in public_names(package)}
PUBLIC_MODULES = {"jimsapi.asgi.testing", "jimsapi.threads.transitions"}
"""Modules whose names are all public; docs/names.md lists them in its first paragraph."""


def plugin_files() -> list[Path]:
    """The code of every plugin in this repository, without its tests."""
    plugins = [path for path in ROOT.glob("plugins/*/*/**/*.py") if path.parts[len(ROOT.parts) + 2] != "tests"]
    return sorted([*plugins, *PACKAGE.glob("builtin/**/*.py")])


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
    """What plugins import that is not public: file, module and name."""
    return {
        f"{path.relative_to(ROOT)} {module} {name}"
        for path in plugin_files()
        for module, name in names_imported(path.read_text(encoding="utf-8"))
        if not is_public(module, name) and not is_own(path, module)
    }


def private_names(folder: Path) -> set[str]:
    """What the Python files in a folder import that is not public: file, module and name."""
    return {
        f"{path.relative_to(folder)} {module} {name}"
        for path in folder.rglob("*.py")
        for module, name in names_imported(path.read_text(encoding="utf-8"))
        if not is_public(module, name)
    }


def is_public(module: str, name: str) -> bool:
    """Whether a plugin may import the name from the module."""
    return module in PUBLIC_MODULES or (module, name) in PUBLIC_NAMES or f"{module}.{name}" in PUBLIC_MODULES


def is_own(path: Path, module: str) -> bool:
    """Whether a file of the built-in plugins imports another of them."""
    return PACKAGE in path.parents and module.startswith("jimsapi.builtin")


def test_plugins_import_public_names_only() -> None:
    assert private_imports() == set(), "import these from a package whose `__all__` lists them"


@pytest.mark.parametrize("package", PUBLIC)
def test_every_public_name_is_there_and_is_described(package: str) -> None:
    module = importlib.import_module(package)
    assert [name for name in public_names(package) if not hasattr(module, name)] == []
    assert [name for name, text in described(package) if not text] == []


@pytest.mark.parametrize("package", PUBLIC)
def test_dir_of_a_package_lists_its_public_names_before_they_are_imported(package: str) -> None:
    code = f"import {package} as package; print(*dir(package), sep='\\n')"
    listed = subprocess.check_output([sys.executable, "-c", code], text=True, cwd=ROOT).split()
    assert set(public_names(package)) - set(listed) == set()


@pytest.mark.parametrize("package", PUBLIC)
def test_a_public_name_is_not_a_module_whatever_was_imported_before(package: str) -> None:
    """Python makes each imported module an attribute of its package, which would hide an exported name."""
    code = f"""
import importlib, pkgutil, types, {package} as package
for found in pkgutil.iter_modules(getattr(package, "__path__", ())):
    if found.name != "__main__":
        importlib.import_module(f"{package}.{{found.name}}")
print(*(name for name in package.__all__ if isinstance(getattr(package, name), types.ModuleType)))
"""
    assert subprocess.check_output([sys.executable, "-c", code], text=True, cwd=ROOT).split() == []


def test_the_page_of_names_is_current() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run `make docs`"


def test_the_microframework_loads_nothing_else_of_ours_and_no_library_of_the_chat() -> None:
    code = "import sys, jimsapi.asgi; print(*sys.modules, sep='\\n')"
    loaded = set(subprocess.check_output([sys.executable, "-c", code], text=True, cwd=ROOT).split())
    ours = {name for name in loaded if name.startswith("jimsapi.") and not name.startswith("jimsapi.asgi")}
    assert ours == {"jimsapi.lazy_attributes"}
    assert not loaded & {"sqlite3", "prometheus_client", "pluggy", "click", "httpx", "uvicorn"}


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
