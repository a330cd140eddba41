"""How heavy the project is, in statements: `python -m tests.weight` prints the table of its packages.

A statement is a node of `ast.stmt` that is no docstring. `weight.csv` has a ceiling for the sums; where one is exceeded
the exit status is 1. Whoever means the growth raises the ceiling, in a line that a reviewer sees.
"""

import ast
import csv
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CEILINGS = ROOT / "weight.csv"
KERNEL = ("asgi", "plugins", "stores", "threads", "runs", "api")
# The packages whose names are public, by their `__all__`, or by a table of names that are imported when they are used.
PUBLIC = ("", "asgi", "threads", "runs", "plugins", "wire", "testing", "client")
TESTS = ("tests", "plugins' tests")


def count_statements(path: Path) -> int:
    """Return the statements of a file. The templates of projects are no Python yet, and have none."""
    try:
        nodes = list(ast.walk(ast.parse(path.read_bytes())))
    except SyntaxError:
        return 0
    return sum(isinstance(node, ast.stmt) and not _is_docstring(node) for node in nodes)


def _is_docstring(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _part(names: tuple[str, ...]) -> str:
    match names:
        case ("jimsapi", package, _, *_):
            return f"jimsapi/{package}"
        case ("jimsapi", _):
            return "jimsapi/*.py"
        case ("plugins", name, _, *_):
            return "plugins' tests" if "tests" in names else f"plugins/{name}"
    return names[0]


def weigh(root: Path) -> Counter[str]:
    """Return the statements of each part of a checkout."""
    parts: Counter[str] = Counter()
    for path in root.rglob("*.py"):
        names = path.relative_to(root).parts
        if not any(name.startswith(".") or name in ("build", "node_modules") for name in names):
            parts[_part(names)] += count_statements(path)
    return parts


def _public_names(root: Path) -> Iterator[str]:
    for package in PUBLIC:
        module = root / "jimsapi" / package / "__init__.py"
        for node in ast.walk(ast.parse(module.read_bytes())):
            match node:
                case ast.Assign(targets=[ast.Name("__all__")], value=value):
                    pass
                case ast.AnnAssign(target=ast.Name("__all__"), value=ast.expr() as value):
                    pass
                case _:
                    continue
            for name in ast.walk(value):
                if isinstance(name, ast.Constant) and isinstance(name.value, str):
                    yield f"{package}.{name.value}"


def sums(parts: Counter[str], root: Path) -> dict[str, int]:
    """Return what has a ceiling."""
    return {
        "jimsapi": sum(count for part, count in parts.items() if part.startswith("jimsapi/")),
        "kernel": sum(parts[f"jimsapi/{part}"] for part in KERNEL),
        "plugins": sum(count for part, count in parts.items() if part.startswith("plugins/")),
        "tests": sum(parts[part] for part in TESTS),
        "public names": len(set(_public_names(root))),
    }


def excesses(found: dict[str, int], ceilings: dict[str, int]) -> list[str]:
    """Return a line for each sum that is above its ceiling."""
    return [
        f"{part} has grown to {found[part]:,}, beyond its ceiling of {ceiling:,}: make it lighter, or raise the "
        f"ceiling in {CEILINGS.name}"
        for part, ceiling in ceilings.items()
        if found[part] > ceiling
    ]


def main() -> None:
    with CEILINGS.open(encoding="utf-8", newline="") as file:
        ceilings = {row["part"]: int(row["ceiling"]) for row in csv.DictReader(file)}
    parts = weigh(ROOT)
    found = sums(parts, ROOT)
    for part, count in sorted(parts.items()):
        print(f"{count:8,}  {part}")
    for part, count in found.items():
        print(f"{count:8,}  of at most {ceilings[part]:,}: {part}")
    sys.exit("\n".join(excesses(found, ceilings)) or None)


if __name__ == "__main__":
    main()
