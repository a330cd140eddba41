"""Each case of the contracts of loaders and adapters fails for a plugin that breaks what it is about."""

from pathlib import Path

import pytest

from jimsapi.testing import AppAdapterContract, AppLoaderContract
from tests.testing.contract_run import ContractRun, Faults, cases_of, pairs

BOTH = {
    "SaysItOnce": ("each_app_answers_the_message_as_declared",),
    "RemembersTheContext": ("contacts_that_write_at_once_get_their_own_answers",),
    "StartsOnce": ("a_server_with_it_starts_stops_and_starts_again",),
    "NotInstalled": ("its_installed_distribution_is_found",),
}
ADAPTER_FAULTS: Faults = {
    **BOTH,
    "AdaptsNothing": ("it_adapts_its_apps",),
    "GivesAPipeline": ("it_adapts_its_apps",),
    "AdaptsEverything": ("it_leaves_other_objects_to_other_plugins",),
    "ComparesApps": ("it_leaves_other_objects_to_other_plugins",),
    "LooksOnce": ("an_app_that_a_function_returns_is_adapted",),
}
LOADER_FAULTS: Faults = {
    **BOTH,
    "LoadsNothing": ("it_loads_its_references",),
    "LoadsEverything": ("it_leaves_other_references_to_other_plugins",),
    "FailsOnInvalid": ("the_operator_reads_why_a_reference_is_invalid",),
    "GivesNoReason": ("the_operator_reads_why_a_reference_is_invalid",),
}

CONTRACT = """
from acme_script import Script
from jimsapi.testing import AppAdapterContract, AppLoaderContract


class TestSound({contract}):
    distribution = "acme-script"
    version = "Sound"
    {examples}
    answers = ("yes",)

    @property
    def settings(self):
        return {{"script_version": self.version}}


class TestNotInstalled(TestSound):
    distribution = "acme-play"
"""
ADAPTER = CONTRACT.format(contract="AppAdapterContract", examples='apps = (Script("yes"), Script("yes"))')
LOADER = CONTRACT.format(contract="AppLoaderContract", examples='references, invalid = ("script:yes",), ("script:",)')


def run(folder: Path, contract: str, faults: Faults) -> ContractRun:
    return ContractRun(folder, "acme-script", "scripts.py", contract, faults)


@pytest.fixture(scope="module")
def adapters(tmp_path_factory: pytest.TempPathFactory) -> ContractRun:
    return run(tmp_path_factory.mktemp("adapters"), ADAPTER, ADAPTER_FAULTS)


@pytest.fixture(scope="module")
def loaders(tmp_path_factory: pytest.TempPathFactory) -> ContractRun:
    return run(tmp_path_factory.mktemp("loaders"), LOADER, LOADER_FAULTS)


def test_an_adapter_that_keeps_the_contract_passes_every_case(adapters: ContractRun) -> None:
    assert adapters.of_class("TestSound") == dict.fromkeys(cases_of(AppAdapterContract))


@pytest.mark.parametrize(("version", "case"), pairs(ADAPTER_FAULTS))
def test_an_adapter_that_breaks_one_thing_fails_the_case_of_it(adapters: ContractRun, version: str, case: str) -> None:
    assert adapters.failure(version, case)


def test_every_case_of_adapters_was_seen_to_fail(adapters: ContractRun) -> None:
    assert adapters.never_failed(AppAdapterContract) == set()


def test_a_loader_that_keeps_the_contract_passes_every_case(loaders: ContractRun) -> None:
    assert loaders.of_class("TestSound") == dict.fromkeys(cases_of(AppLoaderContract))


@pytest.mark.parametrize(("version", "case"), pairs(LOADER_FAULTS))
def test_a_loader_that_breaks_one_thing_fails_the_case_of_it(loaders: ContractRun, version: str, case: str) -> None:
    assert loaders.failure(version, case)


def test_every_case_of_loaders_was_seen_to_fail(loaders: ContractRun) -> None:
    assert loaders.never_failed(AppLoaderContract) == set()
