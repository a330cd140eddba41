"""A layer imports only what stands below it."""

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "jimsapi"

# From the top to the bottom. Parts in one row stand side by side and may not import each other, but for `builtin`,
# which is made with the plugins' public names.
LAYERS = [
    {"cli"},
    {"api", "client"},
    {"wire"},
    {"plugins", "builtin"},
    {"runs", "server"},
    {"stores"},
    {"threads"},
    {"asgi"},
]
BESIDE = {("builtin", "plugins")}

# What stands above all layers: the names for users, the command, the tools for tests.
TOP = {"__init__", "__main__", "testing"}

HEIGHTS = {part: len(LAYERS) - depth for depth, row in enumerate(LAYERS) for part in row}


def part_of(module: str) -> str:
    """The layer's name of `jimsapi.layer.module`; "__init__" for the package itself."""
    return module.split(".")[1] if "." in module else "__init__"


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Line and full name of every module of ours that a file imports, wherever in the file, and for typing too."""
    package = ["jimsapi", *path.relative_to(PACKAGE).parts[:-1]]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            # `from jimsapi import threads` names a module; `from jimsapi import App` a name in the package itself.
            inner = (f"{module}.{alias.name}" for alias in node.names)
            names = [name if is_module(name) else module for name in inner]
        else:
            continue
        yield from ((node.lineno, name) for name in names if name.split(".")[0] == "jimsapi")


def module_of(path: Path) -> str:
    """The full name of the module that a file holds; of a package, the package's."""
    return ".".join(["jimsapi", *path.relative_to(PACKAGE).with_suffix("").parts]).removesuffix(".__init__")


def is_module(name: str) -> bool:
    """Whether a full name is that of a file or folder of ours."""
    place = PACKAGE.parent.joinpath(*name.split("."))
    return place.is_dir() or place.with_suffix(".py").is_file()


def allowed(importer: str, imported: str) -> bool:
    """Whether a part may import another."""
    if importer == imported or importer in TOP or (importer, imported) in BESIDE:
        return True
    return imported in HEIGHTS and HEIGHTS[imported] < HEIGHTS[importer]


def files() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def own_part(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def test_every_part_of_the_package_stands_in_a_layer() -> None:
    assert {own_part(path) for path in files()} <= HEIGHTS.keys() | TOP


@pytest.mark.parametrize("path", files(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_layer_imports_only_what_stands_below_it(path: Path) -> None:
    wrong = [
        f"{path.relative_to(PACKAGE.parent)}:{line} imports {name}"
        for line, name in imports(path)
        if not allowed(own_part(path), part_of(name))
    ]
    assert wrong == []


def test_no_file_imports_itself_by_way_of_others() -> None:
    modules = {module_of(path): path for path in files()}
    graph = {module: {name for _, name in imports(path) if name != module} for module, path in modules.items()}
    TopologicalSorter(graph).prepare()  # raises `CycleError` with the files of a circle


@pytest.mark.parametrize("part", ["asgi", "client"])
def test_the_microframework_and_the_client_know_nothing_else_of_ours(part: str) -> None:
    names = {name for path in (PACKAGE / part).rglob("*.py") for _, name in imports(path)}
    assert {part_of(name) for name in names} == {part}


@pytest.mark.parametrize(
    ("importer", "imported", "may"),
    [
        ("api", "runs", True),
        ("api", "api", True),
        ("builtin", "plugins", True),
        ("plugins", "builtin", False),
        ("asgi", "threads", False),
        ("threads", "asgi", True),
        ("runs", "api", False),
        ("api", "cli", False),
        ("api", "client", False),
        ("cli", "client", True),
        ("cli", "server", True),
        ("server", "runs", False),
        ("asgi", "__init__", False),
        ("threads", "testing", False),
        ("__main__", "cli", True),
        ("testing", "api", True),
    ],
)
def test_the_rule_says_what_it_should(importer: str, imported: str, may: bool) -> None:
    assert allowed(importer, imported) is may
