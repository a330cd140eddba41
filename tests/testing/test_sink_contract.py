"""Each case of the contract of event sinks fails for a sink that breaks what it is about."""

import re

import pytest

from jimsapi.testing import EventSinkContract
from tests.testing.contract_run import ContractRun, Faults, cases_of, pairs

FAULTS: Faults = {
    "Nameless": ("it_has_a_name_that_operators_can_write",),
    "AlwaysThere": ("without_configuration_it_builds_nothing",),
    "LosesTheLast": ("a_batch_arrives_whole_and_in_order",),
    "NewestFirst": ("a_batch_arrives_whole_and_in_order",),
    "WritesLate": ("batches_arrive_in_the_order_of_their_delivery",),
    "SmallBatches": ("the_largest_batch_arrives",),
    "OnlyMessages": ("events_of_any_content_arrive",),
    "OnlyWhatWasSaid": ("a_server_delivers_every_stored_event",),
    "ChangesEvents": ("events_are_not_changed_for_the_other_sinks",),
    "SwallowsCancellation": ("a_cancelled_delivery_does_not_stop_the_next_batch",),
    "LeavesTasks": ("a_cancelled_delivery_does_not_stop_the_next_batch",),
    "LosesSlots": ("a_cancelled_delivery_does_not_stop_the_next_batch",),
    "SilentInAnOutage": ("in_an_outage_delivering_fails_or_the_batch_arrives_later",),
    "GivesUpAfterAnOutage": ("in_an_outage_delivering_fails_or_the_batch_arrives_later",),
    "SpoolsAndForgets": ("in_an_outage_delivering_fails_or_the_batch_arrives_later",),
    "SpoolsAndSendsLate": ("in_an_outage_delivering_fails_or_the_batch_arrives_later",),
    "DurableAndLate": ("what_a_durable_sink_has_delivered_is_at_its_destination_at_once",),
    "DurableAndSilent": ("a_durable_sink_raises_in_an_outage_and_receives_the_batch_again_after_it",),
    "DurableAndRefuses": ("a_durable_sink_raises_in_an_outage_and_receives_the_batch_again_after_it",),
    "DurableAndOutOfOrder": ("a_batch_arrives_whole_and_in_order",),
    "LogsWhatWasSaid": ("neither_messages_nor_secrets_are_logged",),
    "ShowsTheToken": ("neither_messages_nor_secrets_are_logged",),
    "LeavesTheFileOpen": ("it_can_be_closed_and_built_again",),
    "WorksOnce": ("it_can_be_closed_and_built_again",),
    "StartsOnce": ("it_can_be_closed_and_built_again", "a_server_with_it_starts_stops_and_starts_again"),
    "NotInstalled": ("its_installed_distribution_is_found",),
}

WHOLE = ("TestSpools", "TestDurable", "TestSlowToRead")
"""Classes whose sink keeps the contract in another way, or is not at fault."""

CONTRACT = """
import asyncio
from contextlib import asynccontextmanager

import pytest

import acme_pail
from jimsapi.testing import EventSinkContract


class TestSound(EventSinkContract):
    distribution = "acme-pail"
    version = "Sound"
    secrets = ("sesame-sesame",)

    @pytest.fixture(autouse=True)
    def place(self, tmp_path):
        self.path = tmp_path / "pail"

    @property
    def settings(self):
        return {"pail_file": self.path, "pail_token": "sesame-sesame", "pail_version": self.version}

    @property
    def unconfigured(self):
        return {"pail_version": self.version}

    @asynccontextmanager
    async def outage(self):
        with acme_pail.outage():
            yield

    async def arrived(self):
        return self.path.read_text().splitlines()


class TestNotInstalled(TestSound):
    distribution = "acme-bucket"


class TestSpools(TestSound):
    version = "Spools"


class TestDurable(TestSound):
    version = "Durable"


class TestSlowToRead(TestSound):
    # Reading what arrived leaves a task for a while, which is not the task of the sink.

    async def arrived(self):
        self.reading = asyncio.create_task(asyncio.sleep(60))
        return self.path.read_text().splitlines()
"""


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> ContractRun:
    return ContractRun(tmp_path_factory.mktemp("sinks"), "acme-pail", "sinks.py", CONTRACT, FAULTS, WHOLE)


@pytest.mark.parametrize("name", ["TestSound", *WHOLE])
def test_a_sink_that_keeps_the_contract_passes_every_case(ran: ContractRun, name: str) -> None:
    assert ran.of_class(name) == dict.fromkeys(cases_of(EventSinkContract))


@pytest.mark.parametrize(("version", "case"), pairs(FAULTS))
def test_a_sink_that_breaks_one_thing_fails_the_case_of_it(ran: ContractRun, version: str, case: str) -> None:
    assert ran.failure(version, case)


def test_every_case_was_seen_to_fail(ran: ContractRun) -> None:
    assert ran.never_failed(EventSinkContract) == set()


def test_tasks_that_are_left_running_are_named_with_their_line(ran: ContractRun) -> None:
    said = ran.failure("LeavesTasks", "a_cancelled_delivery_does_not_stop_the_next_batch")
    assert re.search(r"tasks were left running: forgotten task \(Event\.wait, at \S+locks\.py:\d+\)", said), said
