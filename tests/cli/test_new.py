"""`jimsapi new` writes a project that works: by the steps that it prints, by its README, and as its image runs it."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
import yaml  # type: ignore[import-untyped] # its types are a distribution of their own

from jimsapi.cli.new_project import RESERVED, words_of, write_project
from jimsapi.cli.rendering import LONGEST_NAME
from jimsapi.plugins.errors import StartError
from tests.clean_venv import CleanVenv, our_wheel
from tests.command import refusal, run_command
from tests.plugins.distributions import install
from tests.ports import free_port
from tests.serving import Served
from tests.test_public_names import private_names

FILES = {
    ".dockerignore", ".gitignore", "Dockerfile", "README.md", "compose.yaml", "jimsapi.toml", "my_bot.py",
    "pyproject.toml", "requirements.txt", "tests/test_my_bot.py", "wheels/README.md",
}  # fmt: skip
OFFLINE = {"PIP_NO_INDEX": "1"}
"""All that pip would download is there already."""


class Written:
    """A project as the installed command wrote it, and the environment in which somebody works on it."""

    def __init__(self, folder: Path) -> None:
        self.venv = CleanVenv(folder / "venv", "pip", "pytest", "websockets")
        self.venv.install(our_wheel())
        ran = self.venv.run("jimsapi", "new", "my-bot", cwd=folder)
        assert (ran.returncode, ran.stderr) == (0, ""), ran.stderr
        self.printed = ran.stdout.splitlines()
        self.project = folder / "my-bot"

    def shell(self, code: str, env: Mapping[str, str] | None = None) -> str:
        """Run a step in the project, and return what it printed."""
        ran = subprocess.run(
            ["bash", "-euc", code],
            cwd=self.project,
            env=self.venv.environment({**OFFLINE, **(env or {})}),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=120,
            check=False,
        )
        assert ran.returncode == 0, ran.stdout
        return ran.stdout

    def served(self, env: Mapping[str, str] | None = None, folder: Path | None = None) -> Served:
        """The command as somebody types it in the project, on another port."""
        server = Served(folder=folder or self.project)
        server.command = [str(self.venv.bin / "jimsapi")]
        ports = {"JIMS_PORT": str(free_port()), "JIMS_METRICS_PORT": "0"}
        server.env = self.venv.environment({**ports, **(env or {})})
        return server


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Written:
    return Written(tmp_path_factory.mktemp("new"))


def test_a_project_is_complete(written: Written, tmp_path: Path) -> None:
    assert run_command("new", "my-bot", cwd=tmp_path).returncode == 0
    project = tmp_path / "my-bot"
    assert {str(path.relative_to(project)) for path in project.rglob("*") if path.is_file()} == FILES


def test_the_printed_steps_lead_to_an_answered_chat(written: Written) -> None:
    steps = [line.strip() for line in written.printed if line.startswith("  ")]
    assert steps == ["cd my-bot", "pip install pytest", "pytest", "jimsapi", "jimsapi chat"]
    written.shell("pip install pytest")
    assert "2 passed" in written.shell("pytest -p no:cacheprovider")
    with written.served() as server:
        assert written.shell(f"echo Hello | jimsapi chat --url {server.url}") == "You said: Hello\n"
    assert any("http://localhost:8080" in line for line in written.printed)


def test_the_project_listens_on_the_loopback_address(written: Written) -> None:
    port = free_port()
    with written.served({"JIMS_METRICS_PORT": str(port)}) as server:
        assert "http://127.0.0.1:" in server.stderr
        assert f"metrics on 127.0.0.1:{port}" in server.stderr


def test_the_server_keeps_the_conversation_in_the_project(written: Written) -> None:
    with written.served() as server:
        written.shell(f"echo Hello | jimsapi chat --url {server.url} --contact ann")
    assert (written.project / "jims.db").is_file()


# The README and the image


def indented(text: str) -> list[str]:
    """The commands of a page, a block each."""
    return [block.replace("\n    ", "\n").strip() for block in re.findall(r"\n\n((?:    .*\n)+)", text)]


@pytest.fixture(scope="module")
def with_wheel(written: Written) -> Written:
    """The project after the command of its README that builds jimsapi's wheel from a checkout."""
    shutil.copy(our_wheel(), written.project / "wheels")
    return written


def test_the_readme_s_commands_work(with_wheel: Written) -> None:
    readme = (with_wheel.project / "README.md").read_text(encoding="utf-8")
    tests, chat, message, wheel, key, permissions, _up, keyed_chat = indented(readme)
    assert tests.splitlines() == ["pip install pytest", "pytest", "jimsapi"]
    build, *install = wheel.splitlines()
    assert build == "pip wheel --no-deps --wheel-dir wheels ../jimsapi"
    assert "Successfully installed jimsapi" in with_wheel.shell("\n".join(install))
    with with_wheel.served() as server:
        assert with_wheel.shell(f"echo Hello | {chat} --url {server.url}") == "You said: Hello\n"
        answer = with_wheel.shell(f"{message} --silent".replace("http://localhost:8080", server.url))
        assert json.loads(answer)["assistant_messages"] == ["You said: Hello"]
    with_wheel.shell(f"{key}\n{permissions}")
    with with_wheel.served({"JIMS_API_KEY_FILE": "secrets/api-key", "JIMS_REQUIRE_AUTH": "true"}) as server:
        assert with_wheel.shell(f"echo Hello | {keyed_chat} --url {server.url}") == "You said: Hello\n"
        with server.client() as client:
            assert client.post("/api/v1/chat", json={"contact_id": "a", "message": "b"}).status_code == 401


def instructions(dockerfile: str) -> list[tuple[str, str]]:
    """The instructions of a Dockerfile and their arguments."""
    lines = re.sub(r"^#.*\n", "", dockerfile, flags=re.MULTILINE).replace("\\\n", " ").splitlines()
    return [(name, argument) for name, _, argument in (line.partition(" ") for line in lines) if name]


@pytest.fixture
def image(with_wheel: Written, tmp_path: Path) -> tuple[Written, Path, dict[str, str]]:
    """The folder and the environment that the instructions of the Dockerfile make, without a container."""
    app, data, env = tmp_path / "app", tmp_path / "data", dict[str, str]()
    app.mkdir()
    data.mkdir()
    for name, argument in instructions((with_wheel.project / "Dockerfile").read_text(encoding="utf-8")):
        if name == "COPY":
            *sources, target = argument.split()
            for source in sources:
                path = with_wheel.project / source
                shutil.copytree(path, app / target) if path.is_dir() else shutil.copy(path, app)
        elif name == "ENV":
            env.update({key: value for key, _, value in (pair.partition("=") for pair in shlex.split(argument))})
        elif name == "RUN" and argument.startswith("pip "):
            with_wheel.shell(f"cd {app}\n{argument}")
    env["JIMS_STORE"] = env["JIMS_STORE"].replace("/data", str(data))
    return with_wheel, app, env


def test_the_image_has_what_the_server_needs_and_no_more(image: tuple[Written, Path, dict[str, str]]) -> None:
    _, app, _ = image
    files = {str(path.relative_to(app)) for path in app.rglob("*") if path.suffix != ".whl" and path.is_file()}
    assert files == {"my_bot.py", "jimsapi.toml", "requirements.txt", "wheels/README.md"}


def test_the_image_serves_on_all_addresses_keeps_its_database_in_the_volume_and_is_healthy(
    image: tuple[Written, Path, dict[str, str]],
) -> None:
    written, app, env = image
    found = dict(instructions((written.project / "Dockerfile").read_text(encoding="utf-8")))
    assert found["CMD"] == '["jimsapi"]'
    health = re.search(r"CMD (\[.*\])", found["HEALTHCHECK"])
    assert health is not None
    port = free_port()
    with written.served({**env, "JIMS_METRICS_PORT": str(port)}, app) as server:
        assert "http://0.0.0.0:" in server.stderr
        assert f"metrics on 0.0.0.0:{port}" in server.stderr
        with server.client() as client:
            client.post("/api/v1/chat", json={"contact_id": "ann", "message": "hi"}).raise_for_status()
        python, *arguments = json.loads(health[1].replace("8080", str(server.port)))
        assert python == "python"
        written.shell(shlex.join([python, *arguments]))
    assert (app.parent / "data" / "jims.db").is_file()


def test_the_compose_file_requires_a_key_and_gives_the_image_no_rights(written: Written) -> None:
    compose = yaml.safe_load((written.project / "compose.yaml").read_text(encoding="utf-8"))
    bot = compose["services"]["bot"]
    assert bot["environment"] == {"JIMS_API_KEY_FILE": "/run/secrets/api-key", "JIMS_REQUIRE_AUTH": "true"}
    assert compose["secrets"][bot["secrets"][0]]["file"] == "secrets/api-key"
    assert bot["volumes"] == ["data:/data"]
    assert set(compose["volumes"]) == {"data"}
    assert (bot["read_only"], bot["cap_drop"]) == (True, ["ALL"])
    assert bot["ports"] == ["127.0.0.1:8080:8080"]


# The code of the project


@pytest.mark.parametrize("name", ["w" * LONGEST_NAME, "q", "My.Bot", "a-1"])
def test_every_name_gives_clean_code(tmp_path: Path, name: str) -> None:
    write_project(tmp_path, words_of(name))
    for command in (["check", "--select", "B,E,F,I,UP,W"], ["format", "--check", "--diff"]):
        ran = subprocess.run(
            [sys.executable, "-m", "ruff", *command, "--line-length", "120", "--no-cache", "."],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert ran.returncode == 0, ran.stdout + ran.stderr


def test_the_code_is_clean_under_strict_mypy(written: Written) -> None:
    command = [sys.executable, "-m", "mypy", "--strict", "--python-executable", str(written.venv.python)]
    ran = subprocess.run(
        [*command, "--cache-dir", str(written.project.parent / "cache"), "my_bot.py", "tests"],
        cwd=written.project,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_the_code_imports_public_names_only(tmp_path: Path) -> None:
    write_project(tmp_path, words_of("my-bot"))
    assert private_names(tmp_path) == set()


# Names that no project can have, and folders that are there already


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("import", "the module name import is not available: choose another name, for example import-bot"),
        ("Email", "the module name email is not available: choose another name, for example email-bot"),
        ("secrets", "the module name secrets is not available"),
        ("pluggy", "the module name pluggy is not available"),
        ("prometheus.client", "the module name prometheus_client is not available"),
        ("jimsapi", "jimsapi begins with jimsapi, as jimsapi and its plugins do: choose another name"),
        ("Jimsapi-bot", "Jimsapi-bot begins with jimsapi"),
        ("jimsapibot", "jimsapibot begins with jimsapi"),
        ("2fa", "2fa gives a module 2fa: choose a name that begins with a letter"),
        ("x" * 41, "is longer than 40 characters"),
        ("my bot", "is not a valid distribution name"),
        ("../bot", "is not a valid distribution name"),
        ("", "is not a valid distribution name"),
        *((name, f"the module name {name} is not available") for name in sorted(RESERVED)),
    ],
)
def test_a_name_that_no_project_can_have_is_refused_with_the_reason(name: str, message: str) -> None:
    with pytest.raises(StartError, match=re.escape(message)):
        words_of(name)


def test_a_refusal_is_one_line_and_writes_nothing(tmp_path: Path) -> None:
    assert "the module name docs is not available" in refusal(run_command("new", "docs", cwd=tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_files_is_left_as_it_is(tmp_path: Path) -> None:
    kept = tmp_path / "my-bot" / "my_bot.py"
    kept.parent.mkdir()
    kept.write_text("mine")
    line = refusal(run_command("new", "my-bot", cwd=tmp_path))
    assert line == "jimsapi: my-bot already exists here: choose another name, or work in another folder"
    assert [path.name for path in kept.parent.iterdir()] == ["my_bot.py"]
    assert kept.read_text() == "mine"


def test_a_file_of_that_name_is_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "my-bot").write_text("mine")
    assert "my-bot already exists here" in refusal(run_command("new", "my-bot", cwd=tmp_path))
    assert (tmp_path / "my-bot").read_text() == "mine"


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    (tmp_path / "my-bot").mkdir()
    assert run_command("new", "my-bot", cwd=tmp_path).returncode == 0
    assert (tmp_path / "my-bot" / "my_bot.py").is_file()


def test_a_plugin_that_is_broken_stops_nobody_from_writing_a_project(tmp_path: Path) -> None:
    install(tmp_path, "acme-broken", "raise RuntimeError('broken')")
    assert run_command("new", "my-bot", cwd=tmp_path).returncode == 0
