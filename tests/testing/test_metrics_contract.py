"""Each case of the contract of metrics fails for metrics that break what it is about."""

import pytest

from jimsapi.testing import MetricsContract
from tests.testing.contract_run import ContractRun, Faults, cases_of, pairs

FAULTS: Faults = {
    "RegistersNothing": ("configured_it_registers_metrics",),
    "AlwaysThere": ("without_configuration_it_registers_nothing",),
    "NameOfAnyPlugin": ("names_begin_with_the_prefix",),
    "WithoutText": ("every_metric_has_a_help_text",),
    "InTheSharedRegistry": ("each_app_of_a_process_has_its_own_metrics",),
    "OfTheModule": ("each_app_of_a_process_has_its_own_metrics",),
    "OnlyInTheMainThread": ("a_server_s_metrics_can_be_read_at_any_time",),
    "NamesThreads": ("no_label_names_a_contact_a_thread_or_a_message",),
    "GrowsWithRuns": ("no_label_names_a_contact_a_thread_or_a_message",),
    "ShowsTheToken": ("no_secret_is_logged_or_shown",),
    "TakesANameOfTheServer": ("a_server_with_it_starts_stops_and_starts_again",),
    "NotAdmitted": ("a_server_s_metrics_can_be_read_at_any_time", "no_label_names_a_contact_a_thread_or_a_message"),
    "NotInstalled": ("its_installed_distribution_is_found",),
}

CONTRACT = """
from jimsapi.testing import MetricsContract


class TestSound(MetricsContract):
    distribution = "acme-gauge"
    version = "Sound"
    secrets = ("sesame-sesame",)

    @property
    def settings(self):
        return {"gauge_token": "sesame-sesame", "gauge_version": self.version}

    @property
    def unconfigured(self):
        return {"gauge_version": self.version}


class TestNotInstalled(TestSound):
    distribution = "acme-meter"


class TestNotAdmitted(TestSound):
    @property
    def settings(self):
        return {**super().settings, "api_key": "sesame-key"}
"""


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> ContractRun:
    return ContractRun(tmp_path_factory.mktemp("metrics"), "acme-gauge", "gauges.py", CONTRACT, FAULTS)


def test_metrics_that_keep_the_contract_pass_every_case(ran: ContractRun) -> None:
    assert ran.of_class("TestSound") == dict.fromkeys(cases_of(MetricsContract))


@pytest.mark.parametrize(("version", "case"), pairs(FAULTS))
def test_metrics_that_break_one_thing_fail_the_case_of_it(ran: ContractRun, version: str, case: str) -> None:
    assert ran.failure(version, case)


def test_every_case_was_seen_to_fail(ran: ContractRun) -> None:
    assert ran.never_failed(MetricsContract) == set()


def test_metrics_of_a_server_that_admits_no_caller_are_not_checked_in_silence(ran: ContractRun) -> None:
    assert "declare `headers` of a caller" in str(ran.failure("NotAdmitted", "no_label_names_a_contact"))
