"""The plugins of `examples/plugins` are wheels that work in a clean environment, and import public names only."""

import ast
import io
import re
import shutil
import subprocess
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

from docs.house import ROOT
from tests.clean_venv import CleanVenv, build_wheels, our_wheel
from tests.test_public_names import private_names

FOLDER = ROOT / "examples" / "plugins"
NAMES = sorted(file.parent.name for file in FOLDER.glob("*/setup.cfg"))
NEEDED = ("pytest", "hypothesis", "lmdb", "msgspec", "pydantic-ai-slim", "tzdata")
"""What the plugins and their tests need beside jimsapi."""

NOT_CODE = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}


class Built:
    """Copies of all projects, their wheels, and an environment that has jimsapi and what the plugins need."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        clutter = shutil.ignore_patterns("build", "*.egg-info", "__pycache__", ".*cache")
        shutil.copytree(FOLDER, folder / "projects", ignore=clutter)
        self.wheels = build_wheels(folder / "wheels", *map(self.project, NAMES))
        self.venv = CleanVenv(folder / "venv", *NEEDED)
        self.venv.install(our_wheel())

    def project(self, name: str) -> Path:
        """The copy of a plugin's folder."""
        return self.folder / "projects" / name

    def wheel(self, name: str) -> Path:
        """The wheel of a plugin."""
        [wheel] = [wheel for wheel in self.wheels if wheel.name.startswith(name.replace("-", "_") + "-")]
        return wheel


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    return Built(tmp_path_factory.mktemp("plugins"))


@pytest.fixture
def venv(built: Built, request: pytest.FixtureRequest) -> Iterator[CleanVenv]:
    """The environment with the one plugin that the test names."""
    name = request.getfixturevalue("name")
    built.venv.install(built.wheel(name))
    yield built.venv
    built.venv.pip("uninstall", "--yes", "--quiet", name)


@pytest.mark.parametrize("name", NAMES)
def test_its_tests_pass_against_the_installed_wheel(built: Built, venv: CleanVenv, name: str) -> None:
    ran = venv.run(
        *("pytest", "-q", "-p", "no:cacheprovider"),
        cwd=built.project(name),
        env={"JIMSAPI_STORE_EXAMPLES": "10", "JIMS_API_KEY": "of-the-developer"},
    )
    assert ran.returncode == 0, ran.stdout
    assert "skipped" not in ran.stdout
    assert "warning" not in ran.stdout


@pytest.mark.parametrize("name", NAMES)
def test_it_is_clean_under_strict_mypy(built: Built, name: str) -> None:
    options = ["--python-executable", str(built.venv.python), "--cache-dir", str(built.folder / "mypy")]
    ran = subprocess.run(
        [sys.executable, "-m", "mypy", *options],
        cwd=built.project(name),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr


@pytest.mark.parametrize("name", NAMES)
def test_it_imports_public_names_only(name: str) -> None:
    assert private_names(FOLDER / name) == set()


def test_the_table_has_every_plugin_with_its_lines() -> None:
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| \[`([\w-]+)`\]\(\1/README\.md\) \|.*\| (\d+) \| (\d+) \|$", text, re.MULTILINE)
    counted = [(name, str(lines_in(name, "jimsapi_*")), str(lines_in(name, "tests"))) for name in NAMES]
    assert sorted(rows) == counted


def lines_in(name: str, folder: str) -> int:
    """Count the lines of code of a plugin's package or tests."""
    return sum(code_lines(path.read_text(encoding="utf-8")) for path in (FOLDER / name).glob(f"{folder}/*.py"))


def code_lines(source: str) -> int:
    """Count lines without those that are blank or only have comments or docstrings."""
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    lines = {row for token in tokens if token.type not in NOT_CODE for row in range(token.start[0], token.end[0] + 1)}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            lines -= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return len(lines)


def test_lines_are_counted_without_blank_ones_comments_and_docstrings() -> None:
    assert code_lines('"""What\n\nit is."""\n\nA = 1  # one\n"""A."""\n# two\nB = """\nC"""\n') == 3
