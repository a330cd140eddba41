"""Each case of the contract of file stores fails for a file store that breaks what it is about."""

import pytest

from jimsapi.testing import FileStoreContract
from tests.testing.contract_run import ContractRun, Faults, cases_of, pairs

FAULTS: Faults = {
    "NotInstalled": ("its_installed_distribution_is_found",),
    "BreaksRoutes": ("a_server_with_it_starts_stops_and_starts_again",),
    "Nameless": ("it_has_a_name_and_leaves_nothing_open",),
    "Forgets": ("files_are_there_when_the_store_is_opened_again",),
    "ForgetsTheName": ("a_file_is_found_and_read_as_it_was_stored",),
    "RefusesTheEmpty": ("a_file_may_have_any_length_known_or_not",),
    "ReadsToTheEnd": ("a_part_of_a_file_can_be_read",),
    "EndsAtAnEmptyPiece": ("pieces_of_any_length_are_joined",),
    "StripsNames": ("names_types_and_contacts_may_be_any_text",),
    "StoresEachTime": ("the_same_file_is_stored_once",),
    "NamesTheContact": ("identifiers_are_short_and_fit_into_a_path",),
    "ShowsAll": ("a_file_of_another_contact_is_not_found",),
    "FindsByTheBeginning": ("an_identifier_that_is_none_is_not_found",),
    "HasOnePage": ("a_contact_lists_its_files_page_by_page",),
    "AcceptsEveryCursor": ("a_cursor_that_is_none_is_refused",),
    "ReadsBeforeItRefuses": ("a_file_beyond_the_quota_is_refused_before_it_is_read",),
    "TrustsUnknownLengths": ("a_file_of_unknown_length_ends_at_the_quota",),
    "KeepsTheSizes": ("a_deleted_file_leaves_its_room",),
    "CountsEachTime": ("a_file_that_is_stored_twice_counts_once",),
    "CountsAtTheEnd": ("concurrent_files_do_not_exceed_the_quota",),
    "KeepsHalf": ("content_that_raises_leaves_nothing",),
    "KeepsReservations": ("a_cancelled_put_leaves_nothing",),
    "DeletesTwice": ("a_deleted_file_is_gone",),
    "DeletesAll": ("a_deleted_contact_has_no_files_and_the_others_keep_theirs",),
    "StoresForTheDeleted": ("a_contact_that_is_deleted_during_a_put_keeps_nothing",),
}

CONTRACT = """
import pytest

import acme_crate
from jimsapi.testing import FileStoreContract


class TestSound(FileStoreContract):
    distribution = "acme-crate"
    version = "Sound"
    settings = {}

    @pytest.fixture(autouse=True)
    def place(self):
        acme_crate.PLACE.clear()

    @property
    def url(self):
        return f"crate:{self.version}"


class TestNotInstalled(TestSound):
    distribution = "acme-barrel"


class TestBreaksRoutes(TestSound):
    settings = {"crate_breaks_routes": True}
"""


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> ContractRun:
    return ContractRun(tmp_path_factory.mktemp("files"), "acme-crate", "file_stores.py", CONTRACT, FAULTS)


def test_a_file_store_that_keeps_the_contract_passes_every_case(ran: ContractRun) -> None:
    assert ran.of_class("TestSound") == dict.fromkeys(cases_of(FileStoreContract))


@pytest.mark.parametrize(("version", "case"), pairs(FAULTS))
def test_a_file_store_that_breaks_one_thing_fails_the_case_of_it(ran: ContractRun, version: str, case: str) -> None:
    assert ran.failure(version, case)


def test_every_case_was_seen_to_fail(ran: ContractRun) -> None:
    assert ran.never_failed(FileStoreContract) == set()
