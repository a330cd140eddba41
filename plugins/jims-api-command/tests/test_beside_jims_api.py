"""If the distribution jims-api is installed too, the command does not start, and prints the commands that repair it."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.clean_venv import ROOT, CleanVenv, build_wheels, our_wheel

PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
BOT = "async def app(ctx):\n    ctx.send_message('hi')\n"


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with wheels of ours, and the real jims-api, which is downloaded."""
    folder = tmp_path_factory.mktemp("wheels")
    sources = []
    for name in ("jims-api-command", "jimsapi-jims", "jimsapi-authentik"):
        ignore = shutil.ignore_patterns("tests", "build", "*.egg-info", "__pycache__")
        sources.append(shutil.copytree(ROOT / "plugins" / name, folder / "sources" / name, ignore=ignore))
    build_wheels(folder, *sources)
    shutil.copy(our_wheel(), folder)
    download = ["download", "--quiet", "--no-deps", "--dest", str(folder), "jims-api==0.6.2"]
    subprocess.run([*PIP, *download], check=True, timeout=120)
    return folder


@pytest.fixture
def venv(wheels: Path, tmp_path: Path) -> CleanVenv:
    """An environment with jimsapi and its plugins, where neither of the two commands is installed."""
    (tmp_path / "bot.py").write_text(BOT)
    made = CleanVenv(tmp_path / "venv")
    made.install(*(wheel for wheel in wheels.glob("jimsapi*.whl")))
    return made


def pip(venv: CleanVenv, wheels: Path, *arguments: str) -> None:
    """Run pip as an operator would, with the folder of wheels for its index."""
    env = {**os.environ, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(wheels)}
    command = [*PIP, "--python", str(venv.python), *arguments]
    subprocess.run(command, env=env, check=True, timeout=120, stdout=subprocess.DEVNULL)


Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run(venv: CleanVenv, tmp_path: Path) -> Run:
    """Runs a command of the environment."""

    def run(*command: str) -> subprocess.CompletedProcess[str]:
        return venv.run(*command, cwd=tmp_path)

    return run


@pytest.mark.parametrize("order", [("jims-api", "jims-api-command"), ("jims-api-command", "jims-api")])
def test_both_installed_refuses_with_the_commands_that_mend_it(
    venv: CleanVenv, wheels: Path, run: Run, order: tuple[str, str]
) -> None:
    for name in order:
        pip(venv, wheels, "install", "--no-deps", name)
    for command in (["python", "-m", "jims_api.main"], ["jims-api"]):
        refused = run(*command, "--app", "bot")
        assert (refused.returncode, refused.stdout) == (1, "")
        [line] = refused.stderr.splitlines()
    mend = line.partition("run: ")[2].split(" && ")
    assert [command.split()[:2] for command in mend] == [["pip", "uninstall"], ["pip", "install"]]
    for fix in mend:
        pip(venv, wheels, *fix.split()[1:])
    for command in (["python", "-m", "jims_api.main"], ["jims-api"]):
        checked = run(*command, "check", "--app", "bot")
        assert checked.returncode == 0, checked.stderr
        assert " serves bot (app) at http://0.0.0.0:8080" in checked.stdout


def test_jims_api_installed_from_a_folder_does_not_come_before_the_refusal(
    venv: CleanVenv, wheels: Path, run: Run, tmp_path: Path
) -> None:
    """As in a workspace of uv, or after `pip install --editable`: its package is no neighbour of ours."""
    pip(venv, wheels, "install", "--no-deps", "jims-api")
    shutil.copytree(venv.site / "jims_api", tmp_path / "libs" / "jims_api")
    shutil.rmtree(venv.site / "jims_api")
    (venv.site / "_jims_api.pth").write_text(f"{tmp_path / 'libs'}\n")
    pip(venv, wheels, "install", "--no-deps", "jims-api-command")
    refused = run("python", "-m", "jims_api.main", "--app", "bot")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr.startswith("jims_api: the distribution jims-api is installed too")


def test_what_is_shared_with_jims_api_is_the_script_and_a_file_that_nobody_misses(
    venv: CleanVenv, wheels: Path, run: Run
) -> None:
    for name in ("jims-api", "jims-api-command"):
        pip(venv, wheels, "install", "--no-deps", name)
    listing = (
        "import importlib.metadata as m; "
        "a, b = ({str(f) for f in m.files(d)} for d in ('jims-api', 'jims-api-command')); "
        "print(*sorted(f for f in a & b if not f.endswith('.pyc')))"
    )
    assert run("python", "-c", listing).stdout.split() == ["../../../bin/jims-api", "jims_api/__init__.py"]
    origin = "import importlib.util as u; print(u.find_spec('jims_api.main').origin)"
    pip(venv, wheels, "uninstall", "--yes", "jims-api")  # and the file that says nothing with it
    assert run("python", "-c", origin).stdout.strip() == str(venv.site / "jims_api" / "main" / "__init__.py")
    pip(venv, wheels, "install", "--no-deps", "jims-api")
    pip(venv, wheels, "uninstall", "--yes", "jims-api-command")
    assert run("python", "-c", origin).stdout.strip() == str(venv.site / "jims_api" / "main.py")
