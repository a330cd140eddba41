"""Draws the packages of jimsapi as a house, `docs/house.svg`, from the code: `make docs` writes it.

A storey imports only from those below it.
"""

import ast
import textwrap
from collections.abc import Iterator
from html import escape
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "jimsapi"
PICTURE = Path(__file__).with_name("house.svg")

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
"""From the top to the bottom. Rooms in one row stand side by side and may not import each other, but for `builtin`,
which is made with the plugins' public names."""

WIDTH, GAP, PADDING, LINE, CHARACTER = 1000, 20, 12, 16, 6.2
"""Pixels; a character is as wide on average."""


def files() -> list[Path]:
    """Every module of the package."""
    return sorted(PACKAGE.rglob("*.py"))


def is_module(name: str) -> bool:
    """Whether a full name is that of a file or folder of ours."""
    place = ROOT.joinpath(*name.split("."))
    return place.is_dir() or place.with_suffix(".py").is_file()


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


def part_of(module: str) -> str:
    """The room of `jimsapi.room.module`; "__init__" for the package itself."""
    return module.split(".")[1] if "." in module else "__init__"


def own_part(path: Path) -> str:
    """The room that a file is in."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def picture() -> str:
    """The house as SVG."""
    drawn: list[str] = []
    top = GAP
    for row in LAYERS:
        width = (WIDTH - GAP * (len(row) + 1)) // len(row)
        texts = {room: _text(room, width) for room in sorted(row)}
        height = PADDING * 2 + LINE * (1 + max(map(len, texts.values())))
        for place, (room, text) in enumerate(texts.items()):
            drawn.append(_room(room, text, GAP + place * (width + GAP), top, width, height))
        top += height + GAP
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {top}" font-family="sans-serif">\n'
        f'<rect width="{WIDTH}" height="{top}" fill="#fff"/>\n{"".join(drawn)}</svg>\n'
    )


def _text(room: str, width: int) -> list[tuple[str, str]]:
    """Lines of text with their colours: what the room is for, its files, and the rooms that it imports from."""
    inside = [path for path in files() if own_part(path) == room]
    about = ast.get_docstring(ast.parse((PACKAGE / room / "__init__.py").read_text(encoding="utf-8"))) or ""
    names = (path.relative_to(PACKAGE / room).with_suffix("").parts for path in inside if path.name != "__init__.py")
    below = {part_of(name) for path in inside for _, name in imports(path)} & set().union(*LAYERS) - {room}
    parts = [(about.split("\n\n")[0], "#000"), (", ".join(map("/".join, names)), "#456")]
    if below:
        parts.append((f"imports from {', '.join(sorted(below))}", "#864"))
    fits = int((width - 2 * PADDING) / CHARACTER)
    return [(line, colour) for text, colour in parts for line in textwrap.wrap(text, fits)]


def _room(name: str, text: list[tuple[str, str]], left: int, top: int, width: int, height: int) -> str:
    lines = "".join(
        f'<text x="{left + PADDING}" y="{top + PADDING + LINE * number - 4}" font-size="12" fill="{colour}">'
        f"{escape(line)}</text>\n"
        for number, (line, colour) in enumerate(text, 2)
    )
    return (
        f'<rect x="{left}" y="{top}" width="{width}" height="{height}" rx="4" fill="#f2f6fa" stroke="#556"/>\n'
        f'<text x="{left + PADDING}" y="{top + PADDING + LINE - 4}" font-size="14" font-weight="bold">{name}</text>\n'
        f"{lines}"
    )
