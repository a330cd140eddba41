"""Each case of the contract of replica links fails for a link that breaks what it is about."""

import pytest

from jimsapi.testing import ReplicaLinkContract
from tests.testing.contract_run import ContractRun, Faults, cases_of, pairs

FAULTS: Faults = {
    "NotInstalled": ("its_installed_distribution_is_found",),
    "AlwaysThere": ("without_configuration_it_builds_nothing",),
    "Nameless": ("it_has_a_name_that_operators_can_write",),
    "LeavesATask": ("it_can_be_closed_and_built_again", "a_server_with_it_starts_stops_and_starts_again"),
    "AsksTheFirst": ("the_replica_that_has_the_answer_gives_it",),
    "AsksAll": ("a_question_to_one_replica_reaches_no_other",),
    "Strips": ("questions_and_answers_of_any_bytes_arrive",),
    "CutsLong": ("questions_and_answers_of_any_bytes_arrive",),
    "CutsQuestions": ("questions_and_answers_of_any_bytes_arrive",),
    "OneAfterAnother": ("a_question_that_waits_delays_no_other",),
    "MixesUp": ("many_questions_at_once_get_their_own_answers",),
    "AnswersForOthers": ("if_no_replica_has_the_answer_there_is_none",),
    "AsksItself": ("a_replica_does_not_answer_itself",),
    "LosesPlaces": ("a_cancelled_question_does_not_stop_the_next",),
    "NeverLeaves": ("a_replica_that_has_left_gives_no_answer",),
    "AnswersInATask": ("a_replica_that_leaves_while_it_waits_leaves_nothing_open",),
    "GivesUp": ("after_an_outage_questions_get_answers_again",),
    "PublishesToItself": ("a_notice_reaches_every_other_replica_once_and_unchanged",),
    "PublishesTwice": ("a_notice_reaches_every_other_replica_once_and_unchanged",),
    "PublishesToOne": ("a_notice_reaches_every_other_replica_once_and_unchanged",),
    "StripsNotices": ("a_notice_reaches_every_other_replica_once_and_unchanged",),
    "PublishesLate": ("after_an_outage_notices_arrive_again_without_those_of_the_outage",),
    "LogsAnswers": ("neither_answers_nor_secrets_are_logged",),
    "ShowsItsSecret": ("neither_answers_nor_secrets_are_logged",),
}

CONTRACT = """
import pytest

import acme_post
from jimsapi.testing import ReplicaLinkContract


class TestSound(ReplicaLinkContract):
    distribution = "acme-post"
    version = "Sound"
    carries_notices = True
    secrets = ("Mephisto square",)

    @pytest.fixture(autouse=True)
    def office(self):
        acme_post.Office.addresses.clear()
        acme_post.Office.subscribers.clear()

    @property
    def settings(self):
        return {"post_office": "Mephisto square", "post_version": self.version}

    def outage(self):
        return acme_post.outage()


class TestNotInstalled(TestSound):
    distribution = "acme-letters"


class TestAlwaysThere(TestSound):
    version = "AlwaysThere"
    unconfigured = {"post_version": "AlwaysThere"}
"""


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> ContractRun:
    return ContractRun(tmp_path_factory.mktemp("links"), "acme-post", "replica_links.py", CONTRACT, FAULTS)


def test_a_link_that_keeps_the_contract_passes_every_case(ran: ContractRun) -> None:
    assert ran.of_class("TestSound") == dict.fromkeys(cases_of(ReplicaLinkContract))


@pytest.mark.parametrize(("version", "case"), pairs(FAULTS))
def test_a_link_that_breaks_one_thing_fails_the_case_of_it(ran: ContractRun, version: str, case: str) -> None:
    assert ran.failure(version, case)


def test_every_case_was_seen_to_fail(ran: ContractRun) -> None:
    assert ran.never_failed(ReplicaLinkContract) == set()
