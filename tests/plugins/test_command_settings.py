"""Commands of plugins read the options of their plugins as a server does."""

from collections.abc import Callable, Mapping
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from jimsapi.plugins import Options, Settings, option, pass_settings
from jimsapi.plugins.options import Owned
from tests.command import refusal, run_command
from tests.plugins.distributions import install

MINT = '''
import click
from jimsapi import Options, Secret, hookimpl, option
from jimsapi.plugins import pass_settings


class MintOptions(Options, prefix="mint"):
    coin: str = option("thaler", help="The coin.")
    weight: int = option(3, minimum=1, help="Its weight.")
    seal: Secret | None = option(help="The seal.")


@hookimpl
def jimsapi_options():
    return MintOptions


@hookimpl
def jimsapi_commands(cli):
    @cli.group("mint")
    def mint():
        """Make coins."""

    @mint.command("coin")
    @click.argument("name")
    @click.option("--old", is_flag=True)
    @pass_settings
    def coin(settings, name, old):
        """Make a coin."""
        options = settings.get(MintOptions)
        click.echo(f"{options.coin} {options.weight} {options.seal is not None} {name} {old}")
'''


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    install(tmp_path, "acme-mint", MINT)
    (tmp_path / "weight").write_text("7\n")
    return tmp_path


@pytest.mark.parametrize(
    ("flags", "env", "printed"),
    [
        ((), {}, "thaler 3 False ann True"),
        (("--mint-coin", "groschen"), {"JIMS_MINT_COIN": "heller"}, "groschen 3 False ann True"),
        ((), {"JIMS_MINT_COIN": "heller", "JIMS_MINT_SEAL": "sesame"}, "heller 3 True ann True"),
        ((), {"JIMS_MINT_WEIGHT_FILE": "weight"}, "thaler 7 False ann True"),
    ],
    ids=["defaults", "a flag", "variables", "a file"],
)
def test_a_command_gets_the_options_from_all_sources(
    folder: Path, flags: tuple[str, ...], env: Mapping[str, str], printed: str
) -> None:
    ran = run_command(*flags, "mint", "coin", "ann", "--old", cwd=folder, env=env)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, f"{printed}\n", "")


def test_an_invalid_option_is_one_line_and_does_not_stop_the_help(folder: Path) -> None:
    env = {"JIMS_MINT_WEIGHT": "heavy"}
    line = refusal(run_command("mint", "coin", "ann", cwd=folder, env=env))
    assert line == "jimsapi: JIMS_MINT_WEIGHT: 'heavy' is not a whole number of at least 1"
    helped = run_command("mint", "coin", "--help", cwd=folder, env=env)
    assert (helped.returncode, helped.stderr) == (0, "")
    assert "Make a coin." in helped.stdout


def test_beside_a_broken_plugin_the_command_names_that(folder: Path) -> None:
    install(folder, "acme-broken", "raise RuntimeError('broken')")
    assert "plugin acme_broken" in refusal(run_command("mint", "coin", "ann", cwd=folder))


class CoinOptions(Options, prefix="coin"):
    value: int = option(1, help="Its value.")


@click.command()
@pass_settings
def show(settings: Settings) -> None:
    """Print the value of a coin."""
    click.echo(settings.get(CoinOptions).value)


def test_a_test_passes_settings_to_a_command() -> None:
    settings = Settings([Owned(CoinOptions, "acme-coin")], {"coin_value": 5}, {})
    assert CliRunner().invoke(show, [], obj=settings).output == "5\n"


def test_a_command_that_jimsapi_did_not_call_says_how_to_pass_settings() -> None:
    ran = CliRunner().invoke(show, [])
    assert isinstance(ran.exception, RuntimeError)
    assert "pass them as `obj`" in str(ran.exception)


def test_the_function_keeps_its_name_and_text() -> None:
    def coin(settings: Settings) -> None:
        """Make a coin."""

    passed: Callable[[], None] = pass_settings(coin)
    assert (passed.__name__, passed.__doc__) == ("coin", "Make a coin.")
