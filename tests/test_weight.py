"""The weight counts statements, and a sum beyond its ceiling is told with its numbers."""

from pathlib import Path

from tests.weight import excesses, sums, weigh


def test_statements_count_in_their_parts_and_docstrings_do_not(tmp_path: Path) -> None:
    for name, text in {
        "jimsapi/__init__.py": '"""What it is for."""\n__all__ = ["a", "b"]\n',
        "jimsapi/runs/flow.py": "def f():\n    '''Why.'''\n    if a: return 1\n",
        "plugins/one/package/module.py": "a = 1; b = 2\n",
        "plugins/one/tests/test_module.py": "a = 1\n",
        "tests/test_flow.py": "a = 1\n",
        "build/copy.py": "a = 1\n",
        ".venv/copy.py": "a = 1\n",
    }.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    for package in ("asgi", "threads", "runs", "plugins", "wire", "testing", "client"):
        (tmp_path / "jimsapi" / package).mkdir(exist_ok=True)
        (tmp_path / "jimsapi" / package / "__init__.py").write_text("")
    found = sums(weigh(tmp_path), tmp_path)
    assert found == {"jimsapi": 4, "kernel": 3, "plugins": 2, "tests": 2, "public names": 2}


def test_growth_beyond_a_ceiling_is_told() -> None:
    assert excesses({"kernel": 10, "tests": 11}, {"kernel": 10, "tests": 10}) == [
        "tests has grown to 11, beyond its ceiling of 10: make it lighter, or raise the ceiling in weight.csv"
    ]
