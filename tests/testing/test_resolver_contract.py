"""Each case of the contract of resolvers fails for a resolver that breaks what it is about."""

import pytest

from jimsapi.testing import ThreadResolverContract
from tests.testing.contract_run import ContractRun, Faults, cases_of, pairs

FAULTS: Faults = {
    "Nameless": ("it_has_a_name_that_operators_can_write",),
    "AlwaysThere": ("without_configuration_it_builds_nothing",),
    "GivesAnIterator": ("it_returns_selectors_for_the_messages_that_it_claims",),
    "GivesNothing": ("it_returns_selectors_for_the_messages_that_it_claims",),
    "GivesNames": ("it_returns_selectors_for_the_messages_that_it_claims",),
    "NeverNew": ("a_server_answers_the_messages_that_it_claims",),
    "ClaimsEverything": ("it_leaves_the_others_to_the_next_resolver",),
    "IgnoresTheThread": ("a_message_that_names_a_thread_enters_no_other_thread",),
    "OneThreadForAll": ("two_contacts_never_share_a_thread",),
    "FoldsCase": ("two_contacts_never_share_a_thread",),
    "RemembersOnItself": ("concurrent_messages_get_their_own_threads",),
    "OnlyAscii": ("any_message_that_the_server_accepts_can_be_resolved",),
    "ChangesTheMessage": ("a_message_is_not_changed",),
    "SwallowsCancellation": ("a_call_that_is_cancelled_ends_and_the_next_one_works",),
    "LogsWhatWasSaid": ("the_text_of_messages_is_not_logged",),
    "LeavesATask": ("it_can_be_closed_and_built_again", "a_server_with_it_starts_stops_and_starts_again"),
    "NotInstalled": ("its_installed_distribution_is_found",),
}

CONTRACT = """
from jimsapi import Inbound
from jimsapi.testing import DoesNotApply, ThreadResolverContract


class TestSound(ThreadResolverContract):
    distribution = "acme-desk"
    version = "Sound"
    claimed = (Inbound(contact_id="ann", message="hi"), Inbound(contact_id="ben", message=""))
    left = (Inbound(contact_id="ann", message="hi", event_type="ui.click"),)

    @property
    def settings(self):
        return {"desk_number": 7, "desk_version": self.version}

    @property
    def unconfigured(self):
        return {"desk_version": self.version}


class TestNotInstalled(TestSound):
    distribution = "acme-counter"


class TestMeantToBeShared(TestSound):
    version = "OneThreadForAll"
    separates_contacts = DoesNotApply("who stands at the desk shares its thread")


class TestTakesContext(TestSound):
    version = "TakesContext"
    request_headers = {"X-Counter": "7"}
"""


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> ContractRun:
    folder = tmp_path_factory.mktemp("resolvers")
    return ContractRun(
        folder, "acme-desk", "resolvers.py", CONTRACT, FAULTS, ("TestMeantToBeShared", "TestTakesContext")
    )


def test_a_resolver_that_keeps_the_contract_passes_every_case(ran: ContractRun) -> None:
    assert ran.of_class("TestSound") == dict.fromkeys(cases_of(ThreadResolverContract))


def test_a_resolver_that_takes_the_context_passes_every_case(ran: ContractRun) -> None:
    assert ran.of_class("TestTakesContext") == dict.fromkeys(cases_of(ThreadResolverContract))


@pytest.mark.parametrize(("version", "case"), pairs(FAULTS))
def test_a_resolver_that_breaks_one_thing_fails_the_case_of_it(ran: ContractRun, version: str, case: str) -> None:
    assert ran.failure(version, case)


def test_every_case_was_seen_to_fail(ran: ContractRun) -> None:
    assert ran.never_failed(ThreadResolverContract) == set()


def test_threads_that_are_meant_to_be_shared_may_be(ran: ContractRun) -> None:
    said = ran.of_class("TestMeantToBeShared")
    assert set(said.values()) == {None}
    assert "test_two_contacts_never_share_a_thread" not in said
