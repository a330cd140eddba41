"""`jimsapi plugin new` writes whole distributions: clean, tested, and at work once they are installed."""

import ast
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import httpx
import pytest

from jimsapi.cli.rendering import LONGEST_NAME
from jimsapi.cli.scaffold import (
    KINDS,
    LONGEST_NAME_OF_SEVERAL,
    OPTIONS,
    words_of,
    write_distribution,
)
from jimsapi.plugins.errors import StartError
from tests.clean_venv import CleanVenv, build_wheels, our_wheel
from tests.command import refusal, run_command
from tests.plugins.distributions import install
from tests.serving import Served
from tests.test_public_names import private_names

NAMES = {
    "auth": "jimsapi-ticket",
    "store": "acme-memory",
    "file-store": "acme-attic",
    "sink": "Acme.Event_log",
    "replica-link": "acme-tube",
    "resolver": "jimsapi-" + "x" * (LONGEST_NAME - len("jimsapi-")),
    "routes": "q",
    "observer": "jimsapi-slow",
    "metrics": "run.counts",
    "adapter": "jimsapi-script",
    "loader": "jimsapi-" + "l" * (LONGEST_NAME - len("jimsapi-")),
    "wrapper": "w" * LONGEST_NAME,
    "asgi-wrapper": "acme.sniff",
    "commands": "jimsapi-mint",
}
"""By kind. Names short and long, of others' making, and such that what is made of them is like a name of ours."""

words = cache(words_of)  # it reads what every installed distribution holds

BOT = "async def app(ctx):\n    ctx.send_message(f'You said: {ctx.get_last_user_message()}')\n"


class Written:
    """A distribution of each kind, as the installed command wrote it, and all of them installed in a clean venv."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.venv = CleanVenv(folder / "venv", "pytest", "hypothesis")
        self.venv.install(our_wheel())
        self.said = {kind: self.new(name, kind) for kind, name in NAMES.items()}
        self.wheels = build_wheels(folder / "wheels", *map(self.project, KINDS))
        self.venv.install(*self.wheels)

    def new(self, name: str, kind: str) -> str:
        """Run the command. Returns what it printed."""
        ran = self.venv.run("jimsapi", "plugin", "new", name, "--kind", kind, cwd=self.folder)
        assert (ran.returncode, ran.stderr) == (0, ""), ran.stderr
        return ran.stdout

    def project(self, kind: str) -> Path:
        """Where the distribution of a kind was written."""
        return self.folder / NAMES[kind]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Written:
    return Written(tmp_path_factory.mktemp("new"))


def test_it_says_what_to_do_next(written: Written) -> None:
    said = written.said["auth"].splitlines()
    assert said[0] == "jimsapi-ticket is written. Next:"
    assert said[1:] == ["  cd jimsapi-ticket", "  pip install --editable '.[test]'", "  pytest"]


def test_a_distribution_is_complete(written: Written) -> None:
    project = written.project("auth")
    files = {str(path.relative_to(project)) for path in project.rglob("*") if path.is_file()}
    assert files >= {
        "setup.cfg", "pyproject.toml", "README.md", "LICENSE", ".gitignore", ".github/workflows/test.yml",
        "jimsapi_ticket/__init__.py", "jimsapi_ticket/provider.py", "jimsapi_ticket/py.typed",
        "tests/conftest.py", "tests/test_contract.py",
    }  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_of_the_templates_is_left(written: Written, kind: str) -> None:
    for path in written.project(kind).rglob("*"):
        if path.is_file() and "build" not in path.parts:
            assert path.suffix != ".txt" or "egg-info" in str(path)
            text = path.read_text(encoding="utf-8")
            assert "$" not in text.replace("${{ matrix.python }}", "").replace("$(cat", ""), path


def test_all_are_clean_under_ruff(written: Written) -> None:
    expect_clean(written.folder, *(NAMES[kind] for kind in KINDS))


def expect_clean(folder: Path, *projects: str) -> None:
    """Fail if ruff, with the configuration of each project, finds a fault or would write something otherwise."""
    for command in (["check"], ["format", "--check", "--diff"]):
        ran = python_in(folder, "ruff", *command, "--no-cache", "--extend-exclude", "build", *projects)
        assert ran.returncode == 0, ran.stdout + ran.stderr


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_clean_under_strict_mypy(written: Written, kind: str) -> None:
    cache = written.folder / "mypy"
    options = ["--strict", "--python-executable", str(written.venv.python), "--cache-dir", str(cache)]
    ran = python_in(written.project(kind), "mypy", *options)
    assert ran.returncode == 0, ran.stdout + ran.stderr


@pytest.mark.parametrize("name", ["w" * LONGEST_NAME, "jimsapi-" + "w" * (LONGEST_NAME - 8), "q"])
def test_the_longest_and_the_shortest_name_give_clean_code(tmp_path: Path, name: str) -> None:
    for kind in KINDS:
        (tmp_path / kind).mkdir()
        write_distribution(tmp_path / kind, [kind], words(name))
    expect_clean(tmp_path, *KINDS)


def python_in(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a module of Python in a folder."""
    return subprocess.run(
        [sys.executable, "-m", *command], cwd=folder, capture_output=True, text=True, timeout=120, check=False
    )


@pytest.mark.parametrize("kind", KINDS)
def test_its_tests_pass_as_they_are_written_against_the_installed_wheel(written: Written, kind: str) -> None:
    ran = written.venv.run(
        *("pytest", "-q", "-p", "no:cacheprovider"),
        cwd=written.project(kind),
        env={"JIMSAPI_STORE_EXAMPLES": "3", "JIMS_API_KEY": "of-the-developer"},
    )
    assert ran.returncode == 0, ran.stdout
    assert "skipped" not in ran.stdout
    assert "warning" not in ran.stdout


def test_its_first_case_fails_where_it_is_not_installed(written: Written, tmp_path: Path) -> None:
    bare = CleanVenv(tmp_path / "bare", "pytest")
    bare.install(our_wheel())
    ran = bare.run("pytest", "-q", "-p", "no:cacheprovider", "-k", "is_found", cwd=written.project("auth"))
    assert ran.returncode == 1
    assert "jimsapi-ticket is not installed here" in ran.stdout


def test_a_wheel_holds_the_package_and_nothing_else(written: Written) -> None:
    [wheel] = [wheel for wheel in written.wheels if wheel.name.startswith("jimsapi_ticket")]
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert names == {"jimsapi_ticket/__init__.py", "jimsapi_ticket/provider.py", "jimsapi_ticket/py.typed"}


def test_all_are_listed_with_the_name_that_their_distribution_has(written: Written) -> None:
    listed = written.venv.run("jimsapi", "plugins", cwd=written.folder).stdout
    found = [line.split()[1:3] for line in listed.splitlines()[:-1]]
    assert found == [
        ["acme-attic", "acme-attic"],
        ["acme-memory", "acme-memory"],
        ["acme-tube", "acme-tube"],
        ["acme-event-log", "Acme.Event_log"],
        ["acme-sniff", "acme.sniff"],
        ["l" * 32, NAMES["loader"]],
        ["mint", "jimsapi-mint"],
        ["script", "jimsapi-script"],
        ["slow", "jimsapi-slow"],
        ["ticket", "jimsapi-ticket"],
        ["x" * 32, NAMES["resolver"]],
        ["q", "q"],
        ["run-counts", "run.counts"],
        ["w" * 40, "w" * 40],
    ]


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "routes"])
def test_unconfigured_it_imports_nothing_but_its_hooks(written: Written, kind: str) -> None:
    [module] = [path.parent for path in written.project(kind).glob("*/py.typed")]
    code = f"import sys, {module.name}; print([name for name in sys.modules if name.startswith('{module.name}.')])"
    ran = written.venv.run("python", "-c", code, cwd=written.folder)
    assert ran.stdout == "[]\n", ran.stderr


@pytest.fixture(scope="module")
def served(written: Written) -> Iterator[Served]:
    (written.folder / "bot.py").write_text(BOT, encoding="utf-8")
    server = Served("--app", "bot:app", "--ticket-secret", "Sesam öffne dich", folder=written.folder)
    server.command[:3] = [str(written.venv.bin / "jimsapi")]
    server.env = written.venv.environment()
    with server:
        yield server


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ([("authorization", "Ticket Sesam öffne dich")], 200),
        ([("authorization", "ticket   Sesam öffne dich")], 200),
        ([], 401),
        ([("authorization", "Ticket Sesam öffne mich")], 401),
        ([("authorization", "Ticket")], 401),
        ([("authorization", "Bearer Sesam öffne dich")], 401),
        ([("x-ticket", "Sesam öffne dich")], 401),
        ([("authorization", "Ticket Sesam öffne dich"), ("authorization", "Ticket x")], 400),
    ],
)
def test_served_by_the_installed_command_it_lets_in_whom_it_should_and_nobody_else(
    served: Served, headers: list[tuple[str, str]], status: int
) -> None:
    raw = [(name.encode(), value.encode()) for name, value in headers]
    with served.client() as client:
        answer = client.post("/api/v1/chat", json={"contact_id": "ann", "message": "hi"}, headers=httpx.Headers(raw))
    assert answer.status_code == status, answer.text
    if status == 401:
        assert answer.headers["www-authenticate"] == "Ticket"
    assert "Sesam" not in served.stderr


# Distributions with several kinds


class WrittenWithAllKinds:
    """A distribution with a plugin of each kind, as the command wrote it, installed in a clean venv."""

    def __init__(self, folder: Path) -> None:
        self.venv = CleanVenv(folder / "venv", "pytest", "hypothesis")
        self.venv.install(our_wheel())
        self.project = folder / "jimsapi-many"
        kinds = [part for kind in (*KINDS, "auth") for part in ("--kind", kind)]
        ran = self.venv.run("jimsapi", "plugin", "new", "jimsapi-many", *kinds, cwd=folder)
        assert (ran.returncode, ran.stderr) == (0, ""), ran.stderr
        self.wheels = build_wheels(folder / "wheels", self.project)
        self.venv.install(*self.wheels)


@pytest.fixture(scope="module")
def all_kinds(tmp_path_factory: pytest.TempPathFactory) -> WrittenWithAllKinds:
    return WrittenWithAllKinds(tmp_path_factory.mktemp("many"))


def test_several_kinds_are_plugins_of_one_distribution(all_kinds: WrittenWithAllKinds) -> None:
    listed = all_kinds.venv.run("jimsapi", "plugins", cwd=all_kinds.project).stdout.splitlines()[:-1]
    assert {line.split()[1] for line in listed} == {f"many-{kind}" for kind in KINDS}
    readme = (all_kinds.project / "README.md").read_text(encoding="utf-8")
    assert [line for line in readme.splitlines() if line.startswith("### ")] == [f"### many-{kind}" for kind in KINDS]
    assert "$" not in readme.replace("$(cat", "")


@pytest.mark.long
def test_the_tests_of_several_kinds_pass_as_they_are_written(all_kinds: WrittenWithAllKinds) -> None:
    env = {"JIMSAPI_STORE_EXAMPLES": "3"}
    ran = all_kinds.venv.run("pytest", "-q", "-p", "no:cacheprovider", cwd=all_kinds.project, env=env)
    assert ran.returncode == 0, ran.stdout
    assert "skipped" not in ran.stdout
    for kind in KINDS:
        assert (all_kinds.project / "tests" / f"test_{kind.replace('-', '_')}.py").is_file()


def test_the_code_of_several_kinds_is_clean(all_kinds: WrittenWithAllKinds) -> None:
    expect_clean(all_kinds.project, ".")
    cache = str(all_kinds.project.parent / "cache")
    options = ["--strict", "--python-executable", str(all_kinds.venv.python), "--cache-dir", cache]
    ran = python_in(all_kinds.project, "mypy", *options)
    assert ran.returncode == 0, ran.stdout + ran.stderr


@pytest.mark.parametrize("name", ["w" * LONGEST_NAME_OF_SEVERAL, "jimsapi-" + "w" * (LONGEST_NAME_OF_SEVERAL - 8), "q"])
def test_the_longest_and_the_shortest_name_give_clean_code_of_several_kinds(tmp_path: Path, name: str) -> None:
    write_distribution(tmp_path, list(KINDS), words(name))
    expect_clean(tmp_path, ".")


def test_a_kind_that_is_given_twice_counts_once(tmp_path: Path) -> None:
    assert run_command("plugin", "new", "q", "--kind", "sink", "--kind", "sink", cwd=tmp_path).returncode == 0
    assert (tmp_path / "q" / "q" / "sink.py").is_file()


def test_no_plugin_of_several_kinds_has_the_name_of_a_built_in_one(tmp_path: Path) -> None:
    line = refusal(run_command("plugin", "new", "jimsapi-log", "--kind", "auth", "--kind", "sink", cwd=tmp_path))
    assert "log-sink is the name of a plugin that comes with jimsapi: choose another name" in line
    assert list(tmp_path.iterdir()) == []


def test_several_kinds_need_a_shorter_name(tmp_path: Path) -> None:
    kinds = ("--kind", "auth", "--kind", "commands")
    line = refusal(run_command("plugin", "new", "x" * (LONGEST_NAME_OF_SEVERAL + 1), *kinds, cwd=tmp_path))
    assert f"is longer than {LONGEST_NAME_OF_SEVERAL} characters: choose a shorter name" in line
    assert "is a subcommand" in refusal(run_command("plugin", "new", "jimsapi-check", *kinds, cwd=tmp_path))
    assert list(tmp_path.iterdir()) == []


# Names that no plugin can have, and folders that are there already


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("-ticket", "is not a valid distribution name"),
        ("ticket-", "is not a valid distribution name"),
        ("my ticket", "is not a valid distribution name"),
        ("a/b", "is not a valid distribution name"),
        ("..", "is not a valid distribution name"),
        ("", "is not a valid distribution name"),
        ("ticket\n", "is not a valid distribution name"),
        ("tickét", "is not a valid distribution name"),
        ("tic\N{KELVIN SIGN}et", "is not a valid distribution name"),
        ("x" * 41, "is longer than 40 characters"),
        ("jimsapi", "is not available"),
        ("Email", "is not available: choose another name, for example jimsapi-email"),
        ("import", "is not available"),
        ("2fa", "choose a name that begins with a letter"),
        ("jimsapi-2fa", "choose a name that begins with a letter"),
        ("jimsapi-key", "key is the name of a plugin that comes with jimsapi"),
        ("jimsapi-keys", "may give the option --keys-file, which jimsapi has"),
        ("jimsapi-api-key", "may give the option --api-key-file, which jimsapi has"),
        ("jimsapi-pytest", "jimsapi_pytest is not available: choose another name, for example acme-pytest"),
        ("Pluggy", "pluggy is not available: choose another name, for example jimsapi-pluggy"),
        ("tests", "is not available"),
        ("conftest", "is not available"),
        ("api", "is not available"),
    ],
)
def test_a_name_that_no_plugin_can_have_is_refused_with_the_reason(name: str, message: str) -> None:
    with pytest.raises(StartError, match=re.escape(message)):
        words_of(name)


@pytest.mark.parametrize("kind", KINDS)
def test_the_options_that_names_are_checked_for_are_those_of_the_templates(tmp_path: Path, kind: str) -> None:
    write_distribution(tmp_path, [kind], words("jimsapi-ticket"))
    code = (tmp_path / "jimsapi_ticket" / "__init__.py").read_text(encoding="utf-8")
    assert set(re.findall(r"^    (\w+): .* = option\(", code, re.MULTILINE)) <= set(OPTIONS)


def test_a_command_that_would_replace_one_of_jimsapi_is_refused(tmp_path: Path) -> None:
    ran = run_command("plugin", "new", "jimsapi-check", "--kind", "commands", cwd=tmp_path)
    assert refusal(ran) == "jimsapi: check is a subcommand of jimsapi: choose another name"
    assert list(tmp_path.iterdir()) == []
    assert run_command("plugin", "new", "jimsapi-check", "--kind", "sink", cwd=tmp_path).returncode == 0


def test_a_refusal_is_one_line_and_writes_nothing(tmp_path: Path) -> None:
    here = tmp_path / "here"
    here.mkdir()
    ran = run_command("plugin", "new", "../jimsapi-ticket", "--kind", "auth", cwd=here)
    assert "'../jimsapi-ticket' is not a valid distribution name" in refusal(ran)
    assert [path.name for path in tmp_path.rglob("*")] == ["here"]


def test_a_folder_that_exists_is_left_as_it_is(tmp_path: Path) -> None:
    kept = tmp_path / "jimsapi-ticket" / "kept"
    kept.parent.mkdir()
    kept.write_text("mine")
    ran = run_command("plugin", "new", "jimsapi-ticket", "--kind", "auth", cwd=tmp_path)
    assert refusal(ran) == "jimsapi: jimsapi-ticket already exists here: choose another name, or work in another folder"
    assert [path.name for path in kept.parent.iterdir()] == ["kept"]
    assert kept.read_text() == "mine"


@pytest.mark.parametrize("arguments", [["jimsapi-ticket"], ["jimsapi-ticket", "--kind", "door"], ["--kind", "auth"]])
def test_wrong_usage_is_exit_2_and_writes_nothing(tmp_path: Path, arguments: list[str]) -> None:
    ran = run_command("plugin", "new", *arguments, cwd=tmp_path)
    assert ran.returncode == 2
    assert list(tmp_path.iterdir()) == []


def test_a_plugin_that_is_broken_stops_nobody_from_writing_one(tmp_path: Path) -> None:
    install(tmp_path, "acme-broken", "raise RuntimeError('broken')")
    assert run_command("plugin", "new", "jimsapi-ticket", "--kind", "auth", cwd=tmp_path).returncode == 0


@pytest.mark.parametrize("kind", KINDS)
def test_it_imports_public_names_only(tmp_path: Path, kind: str) -> None:
    write_distribution(tmp_path, [kind], words("jimsapi-ticket"))
    assert private_names(tmp_path) == set()


@pytest.mark.parametrize("kind", KINDS)
def test_every_name_gives_python_that_can_be_read(tmp_path: Path, kind: str) -> None:
    for name in ("a", "a1", "Auth", "EVENT", "jimsapi-memory", "secret", "thread.store", "x-" * 19 + "y"):
        folder = tmp_path / name
        folder.mkdir()
        write_distribution(folder, [kind], words(name))
        for path in folder.rglob("*.py"):
            ast.parse(path.read_text(encoding="utf-8"))
