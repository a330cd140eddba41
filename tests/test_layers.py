"""A layer imports only what stands below it."""

from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from docs.house import LAYERS, PACKAGE, PICTURE, files, imports, own_part, part_of, picture

BESIDE = {("builtin", "plugins")}

# What stands above all layers: the names for users, the command, the tools for tests.
TOP = {"__init__", "__main__", "testing"}

# What every package uses to export its names.
BOTTOM = {"lazy_attributes"}

HEIGHTS = {part: len(LAYERS) - depth for depth, row in enumerate(LAYERS) for part in row}


def module_of(path: Path) -> str:
    """The full name of the module that a file holds; of a package, the package's."""
    return ".".join(["jimsapi", *path.relative_to(PACKAGE).with_suffix("").parts]).removesuffix(".__init__")


def allowed(importer: str, imported: str) -> bool:
    """Whether a part may import another."""
    if importer == imported or importer in TOP or imported in BOTTOM or (importer, imported) in BESIDE:
        return True
    return imported in HEIGHTS and HEIGHTS[imported] < HEIGHTS[importer]


def test_every_part_of_the_package_stands_in_a_layer() -> None:
    assert {own_part(path) for path in files()} <= HEIGHTS.keys() | TOP | BOTTOM


@pytest.mark.parametrize("path", files(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_layer_imports_only_what_stands_below_it(path: Path) -> None:
    wrong = [
        f"{path.relative_to(PACKAGE.parent)}:{line} imports {name}"
        for line, name in imports(path)
        if not allowed(own_part(path), part_of(name))
    ]
    assert wrong == []


def test_the_picture_of_the_house_shows_it_as_it_is() -> None:
    assert PICTURE.read_text(encoding="utf-8") == picture(), "a file or an import between rooms is new: run `make docs`"


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
