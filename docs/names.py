"""The public names of jimsapi, with the first sentence of each docstring, for the page docs/names.md."""

import ast
import re
from functools import cache
from pathlib import Path

from docs.house import ROOT

PAGE = Path(__file__).with_name("names.md")

PUBLIC = (
    "jimsapi",
    "jimsapi.asgi",
    "jimsapi.asgi.forms",
    "jimsapi.asgi.ranges",
    "jimsapi.threads",
    "jimsapi.runs",
    "jimsapi.plugins",
    "jimsapi.wire",
    "jimsapi.stores",
    "jimsapi.testing",
    "jimsapi.client",
    "jimsapi.cli",
)
"""Packages whose `__all__` lists public names."""

HEAD = """\
# Public names

A name is public if the `__all__` of one of these packages lists it. Import it from the package: `from
jimsapi.plugins import Settings`. All other names may change in any version. The modules `jimsapi.asgi.testing` (a
client for tests) and `jimsapi.threads.transitions` (rules that stores share) are public, too. `docs/generate.py` writes
this page from the docstrings of the names.
"""


def public_names(package: str) -> list[str]:
    """Return what the `__all__` of a package lists."""
    for node in _tree(package).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return list(ast.literal_eval(node.value))
    return []


def described(package: str) -> list[tuple[str, str]]:
    """Return each public name of a package, with the first sentence about it; empty if its module has none."""
    return [(name, _first_sentence(_description(package, name))) for name in public_names(package)]


def page() -> str:
    """Return the text of the page."""
    sections = []
    for package in PUBLIC:
        rows = "".join(f"| `{name}` | {text.replace('|', chr(92) + '|')} |\n" for name, text in described(package))
        about = " ".join((ast.get_docstring(_tree(package)) or "").split())
        sections.append(f"\n## `{package}`\n\n{about}\n\n| Name | What it is |\n|---|---|\n{rows}")
    return HEAD + "".join(sections)


def _description(module: str, name: str) -> str:
    """Find the docstring of a name, in the module that defines it: that of a function or class, or of a constant."""
    body = _tree(module).body
    for position, node in enumerate(body):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and node.name == name:
            return ast.get_docstring(node) or ""
        if isinstance(node, ast.Assign | ast.AnnAssign) and name in _targets(node):
            return _text_after(body, position)
    for imported in ast.walk(_tree(module)):
        if isinstance(imported, ast.ImportFrom) and any(alias.name == name for alias in imported.names):
            return _description(_absolute(module, imported), name)
    return ""


def _targets(node: ast.Assign | ast.AnnAssign) -> set[str]:
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    return {found.id for target in targets for found in ast.walk(target) if isinstance(found, ast.Name)}


def _text_after(body: list[ast.stmt], position: int) -> str:
    following = body[position + 1] if position + 1 < len(body) else None
    if isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant):
        return str(following.value.value)
    return ""


def _absolute(module: str, node: ast.ImportFrom) -> str:
    if not node.level:
        return node.module or ""
    package = module if _path(module).name == "__init__.py" else module.rpartition(".")[0]
    parts = package.split(".")[: len(package.split(".")) - node.level + 1]
    return ".".join([*parts, *([node.module] if node.module else [])])


def _first_sentence(text: str) -> str:
    first = " ".join(text.strip().split("\n\n")[0].split())
    return re.split(r"(?<=\.)\s+(?=[A-Z`])", first)[0]


def _path(module: str) -> Path:
    place = ROOT.joinpath(*module.split("."))
    return place / "__init__.py" if place.is_dir() else place.with_suffix(".py")


@cache
def _tree(module: str) -> ast.Module:
    return ast.parse(_path(module).read_text(encoding="utf-8"))
