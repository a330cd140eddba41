"""Operators decide which installed plugins are loaded, and can work beside a plugin that is broken."""

from pathlib import Path

import pytest

from jimsapi import create_api
from jimsapi.asgi.testing import TestClient
from tests.command import refusal, run_command
from tests.plugins.distributions import install

ROUTE = """
from jimsapi import *

@hookimpl
def jimsapi_routes(router):
    @router.get("/NAME", public=True)
    async def show(request):
        return Response(b"NAME")
"""
BROKEN = "raise RuntimeError('it is broken')"
PROVIDER = """
from jimsapi import *

class Lock:
    name = "lock"
    async def authenticate(self, connection):
        return None

@hookimpl
def jimsapi_auth_provider():
    return Lock()
"""


@pytest.fixture
def doors(site: Path) -> Path:
    """Three plugins, each with a route: front and back, of distributions with other names, and a broken one."""
    install(site, "acme-front-door", ROUTE.replace("NAME", "front"), point="front = acme_front_door")
    install(site, "acme-back-door", ROUTE.replace("NAME", "back"), point="back = acme_back_door")
    (site / "bot.py").write_text("async def app(ctx):\n    ctx.send_message('hi')\n")
    return site


async def routes(**options: object) -> set[str]:
    """Which of the plugins' routes are served."""
    async with TestClient(create_api("bot", store="memory:", api_key="k", **options)) as client:
        return {name for name in ("front", "back") if (await client.get(f"/{name}")).status_code == 200}


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("options", "served"),
    [
        ({}, {"front", "back"}),
        ({"plugins": "front"}, {"front"}),
        ({"plugins": "acme-back-door"}, {"back"}),
        ({"plugins": "Acme_Back.Door"}, {"back"}),
        ({"plugins": "front, back"}, {"front", "back"}),
        ({"plugins": "none"}, set()),
        ({"plugins": ""}, {"front", "back"}),
        ({"without_plugin": "front"}, {"back"}),
        ({"without_plugin": ["front", "acme-back-door"]}, set()),
        ({"without_plugin": "front,back"}, set()),
        ({"plugins": "front,back", "without_plugin": "back"}, {"front"}),
    ],
)
async def test_options_select_the_plugins_that_are_loaded(
    doors: Path, options: dict[str, object], served: set[str]
) -> None:
    assert await routes(**options) == served


@pytest.mark.anyio
async def test_variables_select_plugins_too(doors: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JIMS_PLUGINS", "front,back")
    monkeypatch.setenv("JIMS_WITHOUT_PLUGIN", "front")
    assert await routes() == {"back"}


@pytest.mark.anyio
@pytest.mark.parametrize("option", ["plugins", "without_plugin"])
async def test_a_name_that_is_not_installed_stops_the_start(doors: Path, option: str) -> None:
    with pytest.raises(RuntimeError, match=r"names frond, which is not installed \(installed plugins: back, front\)"):
        await routes(**{option: "frond"})


def test_a_plugin_that_is_left_out_is_not_imported(doors: Path) -> None:
    install(doors, "acme-broken", BROKEN)
    assert run_command("check", "--app", "bot", "--store", "memory:", cwd=doors).returncode == 1
    checked = run_command("check", "--app", "bot", "--store", "memory:", "--without-plugin=acme-broken", cwd=doors)
    assert checked.returncode == 0, checked.stderr
    assert "front (acme-front-door 1.0)" in checked.stdout


@pytest.mark.parametrize(
    ("flags", "loaded"),
    [
        (["--plugins", "front"], "plugins: front (acme-front-door 1.0); left out: back"),
        (["--plugins=none"], "plugins: only the built-in ones; left out: back, front"),
        (["--plugins", "back", "--plugins", "front"], "plugins: front (acme-front-door 1.0); left out: back"),
        (
            ["--without-plugin", "front", "--without-plugin=back"],
            "plugins: only the built-in ones; left out: back, front",
        ),
        ([], "plugins: back (acme-back-door 1.0), front (acme-front-door 1.0)"),
    ],
)
@pytest.mark.parametrize("before", [True, False])
def test_flags_before_or_behind_a_subcommand_select_plugins(
    doors: Path, flags: list[str], loaded: str, before: bool
) -> None:
    arguments = ["check", "--app", "bot", "--store", "memory:"]
    checked = run_command(*(flags + arguments if before else arguments + flags), cwd=doors)
    assert checked.returncode == 0, checked.stderr
    assert loaded in checked.stdout.splitlines()


def test_without_authentication_the_warning_names_the_plugins_that_are_not_loaded(doors: Path) -> None:
    install(doors, "acme-lock", PROVIDER, point="lock = acme_lock")
    checked = run_command("check", "--app", "bot", "--store", "memory:", "--without-plugin", "lock", cwd=doors)
    assert "restrict the network (plugins that are not loaded: lock)" in checked.stderr


@pytest.mark.parametrize("value", [",", " , "])
def test_a_selection_without_a_name_is_refused(doors: Path, value: str) -> None:
    ran = run_command("check", "--app", "bot", "--plugins", value, cwd=doors)
    assert "names no plugin; give names, or none" in refusal(ran)


def test_the_list_of_plugins_shows_what_is_left_out(doors: Path) -> None:
    back, front = run_command("plugins", "--without-plugin", "back", cwd=doors).stdout.splitlines()[:2]
    assert back.endswith("(not loaded: --plugins or --without-plugin leaves it out)")
    assert front == "2. front  acme-front-door 1.0  acme_front_door"


def test_the_error_of_a_broken_plugin_names_the_option_that_starts_without_it(doors: Path) -> None:
    install(doors, "acme-broken", BROKEN, point="broken = acme_broken")
    line = refusal(run_command("--app", "bot", "--store", "memory:", cwd=doors))
    assert "RuntimeError: it is broken" in line
    assert "--without-plugin broken" in line


def test_check_beside_broken_plugins_checks_the_others_and_shows_every_error(doors: Path) -> None:
    install(doors, "acme-broken", BROKEN)
    install(doors, "zzz-broken", "raise RuntimeError('this one, too')")
    checked = run_command("check", "--app", "bot", "--store", "memory:", cwd=doors)
    assert checked.returncode == 1
    assert "front (acme-front-door 1.0)" in checked.stdout
    assert "it is broken" in checked.stderr
    assert "this one, too" in checked.stderr


@pytest.mark.parametrize("arguments", [["--acme-secret", "x", "--app", "bot"], ["acme-command"]])
def test_beside_an_option_or_command_that_a_broken_plugin_may_have_stands_its_error(
    doors: Path, arguments: list[str]
) -> None:
    install(doors, "acme-broken", BROKEN)
    ran = run_command(*arguments, cwd=doors)
    assert ran.returncode == 2
    assert "it is broken" in ran.stderr
    assert "No such" in ran.stderr


@pytest.mark.parametrize(
    "code",
    [
        (
            "from jimsapi import *\nclass P:\n    @property\n    def jimsapi_x(self): raise LookupError\n"
            "    @hookimpl\n    def jimsapi_observer(self): raise LookupError\nplugin = P"
        ),
        (
            "from jimsapi import *\nfrom typing import Literal\nclass O(Options, prefix='o'):\n"
            "    size: Literal[1, 2] = option(1, help='x')\n@hookimpl\ndef jimsapi_options(): return O"
        ),
        "from jimsapi import *\n@hookimpl\ndef jimsapi_options(): raise LookupError",
    ],
)
def test_whatever_breaks_a_plugin_keys_and_help_work_and_check_fails_without_a_traceback(
    doors: Path, code: str
) -> None:
    install(doors, "acme-broken", code, point="broken = acme_broken" + (":plugin" if "plugin = P" in code else ""))
    assert run_command("keys", "new", "website", "--keys-file", "keys.json", cwd=doors).returncode == 0
    assert run_command("--help", cwd=doors).returncode == 0
    checked = run_command("check", "--app", "bot", "--store", "memory:", cwd=doors)
    assert checked.returncode == 1
    assert "Traceback" not in checked.stderr


def test_two_plugins_of_one_name_do_not_keep_keys_from_working(doors: Path) -> None:
    install(doors, "acme-other-door", ROUTE.replace("NAME", "other"), point="front = acme_other_door")
    assert run_command("keys", "new", "website", "--keys-file", "keys.json", cwd=doors).returncode == 0
    assert "two plugins are named front" in run_command("check", "--app", "bot", cwd=doors).stderr


def test_an_option_that_no_plugin_can_have_stays_wrong_usage(doors: Path) -> None:
    assert run_command("--acme-secret", "x", cwd=doors).returncode == 2
    assert run_command("acme-command", cwd=doors).returncode == 2


@pytest.mark.anyio
async def test_a_plugin_that_requires_another_version_of_the_host_stops_the_start(doors: Path) -> None:
    metadata = doors / "acme_front_door-1.0.dist-info" / "METADATA"
    metadata.write_text(f"{metadata.read_text()}Requires-Dist: jimsapi>=99\n")
    with pytest.raises(RuntimeError, match=r"plugin front .* requires jimsapi >=99, and this is jimsapi \d"):
        await routes()
    assert await routes(without_plugin="front") == {"back"}


@pytest.mark.anyio
async def test_a_plugin_whose_host_is_this_version_is_loaded(doors: Path) -> None:
    metadata = doors / "acme_front_door-1.0.dist-info" / "METADATA"
    metadata.write_text(
        f"{metadata.read_text()}Requires-Dist: jimsapi>=0.0.1,<99\nRequires-Dist: jimsapi>=98; extra == 'x'\n"
    )
    assert await routes() == {"front", "back"}


@pytest.mark.anyio
async def test_what_a_plugin_s_readme_says_is_no_requirement(doors: Path) -> None:
    metadata = doors / "acme_front_door-1.0.dist-info" / "METADATA"
    metadata.write_text(f"{metadata.read_text()}\nRequires-Dist: jimsapi>=99\n")
    assert await routes() == {"front", "back"}


@pytest.mark.anyio
async def test_the_host_that_a_plugin_in_an_egg_requires_is_checked(doors: Path) -> None:
    egg = (doors / "acme_front_door-1.0.dist-info").rename(doors / "acme_front_door-1.0.egg-info")
    metadata = (egg / "METADATA").rename(egg / "PKG-INFO")
    metadata.write_text(f"{metadata.read_text()}Requires-Dist: jimsapi>=99\n")
    with pytest.raises(RuntimeError, match=r"plugin front .*front-door 1.0.* requires jimsapi >=99"):
        await routes()


@pytest.mark.anyio
async def test_a_hook_that_this_host_lacks_is_ignored_if_it_is_marked_optional(doors: Path) -> None:
    install(
        doors,
        "acme-tomorrow",
        ROUTE.replace("/NAME", "/tomorrow")
        + "\n@hookimpl(optionalhook=True)\ndef jimsapi_of_tomorrow(): raise LookupError\n",
    )
    async with TestClient(create_api("bot", store="memory:", api_key="k")) as client:
        assert (await client.get("/tomorrow")).status_code == 200


@pytest.mark.anyio
async def test_two_plugins_of_one_name_load_if_one_is_left_out(doors: Path) -> None:
    install(doors, "acme-other-door", ROUTE.replace("NAME", "other"), point="front = acme_other_door")
    with pytest.raises(RuntimeError, match="two plugins are named front"):
        await routes()
    assert await routes(without_plugin="acme-other-door") == {"front", "back"}
