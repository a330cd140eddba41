"""Each case of the contract of commands fails for a command that breaks what it is about."""

import pytest

from jimsapi.testing import CommandsContract
from tests.testing.contract_run import ContractRun, Faults, cases_of, pairs

FAULTS: Faults = {
    "AddsNothing": ("the_help_shows_each_command_with_a_text",),
    "AddsMore": ("it_adds_its_commands_and_no_others",),
    "TakesCheck": ("no_command_replaces_another",),
    "WithoutHelp": ("the_help_shows_each_command_with_a_text",),
    "HelpNeedsAName": ("the_help_of_each_command_needs_no_configuration",),
    "AcceptsEverything": ("wrong_usage_is_reported_without_a_traceback",),
    "Fails": ("calls_succeed",),
    "ForbidsServers": ("a_server_with_it_starts_stops_and_starts_again",),
    "NotInstalled": ("its_installed_distribution_is_found",),
}

CONTRACT = """
import acme_mint
import pytest
from jimsapi.testing import CommandsContract


class TestSound(CommandsContract):
    distribution = "acme-mint"
    version = "Sound"
    commands = ("mint",)
    calls = (["mint"],)

    @pytest.fixture(autouse=True)
    def choose(self, monkeypatch):
        monkeypatch.setattr(acme_mint, "VERSION", self.version)
        monkeypatch.setenv("ACME_MINT", self.version)


class TestHidden(TestSound):
    version = "Hidden"


class TestNotInstalled(TestSound):
    distribution = "acme-press"
"""


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> ContractRun:
    return ContractRun(
        tmp_path_factory.mktemp("commands"), "acme-mint", "mints.py", CONTRACT, FAULTS, whole=("TestHidden",)
    )


def test_commands_that_keep_the_contract_pass_every_case(ran: ContractRun) -> None:
    assert ran.of_class("TestSound") == dict.fromkeys(cases_of(CommandsContract))


def test_a_command_that_is_hidden_on_purpose_passes_every_case(ran: ContractRun) -> None:
    assert ran.of_class("TestHidden") == dict.fromkeys(cases_of(CommandsContract))


@pytest.mark.parametrize(("version", "case"), pairs(FAULTS))
def test_commands_that_break_one_thing_fail_the_case_of_it(ran: ContractRun, version: str, case: str) -> None:
    assert ran.failure(version, case)


def test_every_case_was_seen_to_fail(ran: ContractRun) -> None:
    assert ran.never_failed(CommandsContract) == set()
