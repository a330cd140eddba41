"""The changes that `make mutants` makes are those that it says, and the same ones each time."""

import ast
from pathlib import Path

import pytest

from tests.mutants.mutations import find_mutations, sample


@pytest.mark.parametrize(
    ("line", "changes"),
    [
        ("x = a == b", {"x = a != b"}),
        ("x = a is not b", {"x = a is b"}),
        ("x = a not in b", {"x = a in b"}),
        ("x = 0 < a <= b", {"x = 0 <= a <= b", "x = 0 < a < b", "x = 1 < a <= b"}),
        ("x = True", {"x = False"}),
        ("a.call()", {"pass"}),
        ("raise a", {"pass"}),
        ("a.b = c", {"pass"}),
        ("a = f(b, c)", {"a = f(c, b)"}),
        ("a = b if c else d", {"a = b if (not (c)) else d"}),
        ("a: Literal[1] = b", set()),
        ("a = f'{b == 1}'", set()),
        ("assert a == b", set()),
        ("'text'", set()),
    ],
)
def test_each_kind_of_change(line: str, changes: set[str], tmp_path: Path) -> None:
    source = f"def f():\n    {line}\n"
    found = find_mutations("module.py", source.encode())
    results = set()
    for mutation in found:
        (tmp_path / "module.py").write_text(source)
        mutation.apply(tmp_path)
        results.add((tmp_path / "module.py").read_text().splitlines()[1].strip())
    assert results == changes


def test_lines_keep_their_numbers_and_the_code_can_be_read(tmp_path: Path) -> None:
    source = "def f():\n    g(\n        1,\n        2,\n    )\n    h()\n"
    for mutation in find_mutations("module.py", source.encode()):
        (tmp_path / "module.py").write_text(source)
        mutation.apply(tmp_path)
        changed = (tmp_path / "module.py").read_text()
        ast.parse(changed)
        assert changed.count("\n") == source.count("\n")


def test_the_sample_of_a_function_does_not_depend_on_the_code_around_it(tmp_path: Path) -> None:
    module = tmp_path / "package" / "module.py"
    module.parent.mkdir()
    module.write_text("def f(a):\n    return a < 1\n")
    before = [(mutation.function, mutation.after) for mutation in sample(tmp_path, "package", 1, 2)]
    module.write_text("A = 1\n\n\ndef f(a):\n    return a < 1\n")
    assert [(mutation.function, mutation.after) for mutation in sample(tmp_path, "package", 1, 2)] == before
