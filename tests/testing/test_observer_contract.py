"""Each case of the contract of observers fails for an observer that breaks what it is about."""

import pytest

from jimsapi.testing import ObserverContract
from tests.testing.contract_run import ContractRun, Faults, cases_of, pairs

FAULTS: Faults = {
    "AlwaysThere": ("without_configuration_it_builds_nothing",),
    "KnowsItsRoutes": ("it_accepts_every_record", "no_record_of_a_server_makes_it_fail"),
    "NeedsAThread": ("it_accepts_every_record",),
    "IsAsync": ("it_accepts_every_record",),
    "ChangesFields": ("records_are_not_changed_for_the_other_observers",),
    "Sleeps": ("it_does_not_block_the_server",),
    "SendsOverTcp": ("it_does_not_block_the_server",),
    "LogsTheToken": ("no_secret_is_logged_or_shown",),
    "LeavesATask": ("it_can_be_closed_and_built_again", "a_server_with_it_starts_stops_and_starts_again"),
    "StartsOnce": ("it_can_be_closed_and_built_again", "a_server_with_it_starts_stops_and_starts_again"),
    "NotInstalled": ("its_installed_distribution_is_found",),
}

CONTRACT = """
from jimsapi.testing import ObserverContract


class TestSound(ObserverContract):
    distribution = "acme-tally"
    version = "Sound"
    secrets = ("sesame-sesame",)

    @property
    def settings(self):
        return {"tally_token": "sesame-sesame", "tally_version": self.version}

    @property
    def unconfigured(self):
        return {"tally_version": self.version}


class TestNotInstalled(TestSound):
    distribution = "acme-count"
"""


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> ContractRun:
    return ContractRun(tmp_path_factory.mktemp("observers"), "acme-tally", "observers.py", CONTRACT, FAULTS)


def test_an_observer_that_keeps_the_contract_passes_every_case(ran: ContractRun) -> None:
    assert ran.of_class("TestSound") == dict.fromkeys(cases_of(ObserverContract))


@pytest.mark.parametrize(("version", "case"), pairs(FAULTS))
def test_an_observer_that_breaks_one_thing_fails_the_case_of_it(ran: ContractRun, version: str, case: str) -> None:
    assert ran.failure(version, case)


def test_every_case_was_seen_to_fail(ran: ContractRun) -> None:
    assert ran.never_failed(ObserverContract) == set()
