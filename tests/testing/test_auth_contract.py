"""Each case of the contract of auth providers fails for a provider that breaks what it is about."""

import pytest

from jimsapi.testing import AuthProviderContract, DoesNotApply
from tests.testing.contract_run import ContractRun, Faults, cases_of, pairs

# The version of the door, and the cases that must fail for it.
FAULTS: Faults = {
    "TwoWords": ("it_has_a_name_that_operators_can_write",),
    "AlwaysThere": ("without_configuration_it_builds_nothing",),
    "OpenByHalf": ("half_a_configuration_admits_nobody",),
    "AdmitsByHalf": ("half_a_configuration_admits_nobody",),
    "AnswersTrue": ("good_credentials_are_admitted_with_their_subject", "the_server_admits_its_callers"),
    "EmptySubject": ("an_identity_is_well_formed", "good_credentials_are_admitted_with_their_subject"),
    "NumberedSubject": ("an_identity_is_well_formed",),
    "ContactNobodyCanHave": ("an_identity_is_well_formed",),
    "NumberedScopes": ("an_identity_is_well_formed",),
    "ClaimsEverything": ("a_request_without_credentials_is_left_to_other_providers",),
    "ClaimsOtherSchemes": ("credentials_of_another_kind_are_left_to_other_providers",),
    "FailsOnMalformed": ("malformed_credentials_are_invalid",),
    "PassesMalformed": ("malformed_credentials_are_invalid",),
    "ComparesMostOfIt": ("almost_right_credentials_are_not_admitted",),
    "RemembersMostOfIt": ("almost_right_credentials_are_not_admitted",),
    "RemembersTheLastOne": ("almost_right_credentials_are_not_admitted",),
    "RemembersThePerson": ("wrong_credentials_are_invalid", "expired_credentials_are_invalid"),
    "AdmitsByForm": ("forged_credentials_are_not_admitted",),
    "SignedByForm": ("forged_credentials_are_not_admitted",),
    "NoExpiry": ("expired_credentials_are_invalid",),
    "AdmitsEve": ("holders_without_access_are_denied", "the_server_answers_403_to_denied_callers"),
    "AdmitsEmpty": ("empty_credentials_are_not_admitted",),
    "FailsOnEmpty": ("empty_credentials_are_not_admitted",),
    "ComparesBeginnings": ("huge_credentials_are_not_admitted",),
    "ComparesDigests": ("non_ascii_credentials_are_not_admitted",),
    "SkipsWhatIsNotAscii": ("non_ascii_credentials_are_not_admitted",),
    "SuperscriptYears": ("non_ascii_credentials_are_not_admitted",),
    "FirstHeader": ("two_headers_that_differ_are_not_admitted",),
    "LastHeader": ("two_headers_that_differ_are_not_admitted",),
    "RemembersOnItself": ("concurrent_calls_get_their_own_answers",),
    "SwallowsCancellation": ("a_call_that_is_cancelled_ends_and_the_next_one_works",),
    "LeavesTasks": ("a_call_that_is_cancelled_ends_and_the_next_one_works",),
    "LosesSlots": ("a_call_that_is_cancelled_ends_and_the_next_one_works",),
    "AdmitsInAnOutage": (
        "in_an_outage_it_is_unavailable_and_admits_nobody",
        "in_an_outage_the_server_answers_503_with_retry_after",
    ),
    "RefusesInAnOutage": ("in_an_outage_it_is_unavailable_and_admits_nobody",),
    "RaisesInAnOutage": ("in_an_outage_it_is_unavailable_and_admits_nobody",),
    "ComparesByEquality": ("secrets_are_compared_in_constant_time",),
    "ComparesBytes": ("secrets_are_compared_in_constant_time",),
    "ComparesARegularExpression": ("secrets_are_compared_in_constant_time",),
    "ComparesWhatItKept": ("secrets_are_compared_in_constant_time",),
    "ComparesAPrefix": ("secrets_are_compared_in_constant_time",),
    "LogsTheSecret": ("no_secret_is_logged_raised_or_shown",),
    "LogsItInAnExtra": ("no_secret_is_logged_raised_or_shown",),
    "PrintsTheSecret": ("no_secret_is_logged_raised_or_shown",),
    "RaisesTheSecret": ("no_secret_is_logged_raised_or_shown",),
    "CausedByTheSecret": ("no_secret_is_logged_raised_or_shown",),
    "ShowsTheSecret": ("no_secret_is_logged_raised_or_shown",),
    "TextOption": ("no_secret_is_logged_raised_or_shown",),
    "MalformedChallenge": ("the_server_answers_401_to_others_with_a_well_formed_challenge",),
    "IssuerWithoutAddress": ("the_server_names_its_authorization_servers",),
    "ScopeOfThreeWords": ("the_server_names_its_authorization_servers",),
    "WorksOnce": ("it_can_be_closed_and_built_again",),
    "StartsOnce": ("it_can_be_closed_and_built_again", "a_server_with_it_starts_stops_and_starts_again"),
    "LeavesATask": ("it_can_be_closed_and_built_again", "a_server_with_it_starts_stops_and_starts_again"),
    "LeavesASocket": ("it_can_be_closed_and_built_again",),
    "AdmitsTwice": ("good_credentials_are_admitted_once",),
    "NotesLate": ("of_concurrent_calls_with_the_same_credentials_one_is_admitted",),
    "LogsTheSignature": ("no_secret_is_logged_raised_or_shown",),
    "ComparesSignatures": ("secrets_are_compared_in_constant_time",),
    # Not the provider is at fault, but what is said of it.
    "NotInstalled": ("its_installed_distribution_is_found", "the_host_knows_it_by_its_distribution"),
    "NoSecretOfItsOwn": ("each_good_credential_contains_a_secret",),
    "WrongThatIsRight": ("wrong_credentials_are_invalid", "the_server_answers_401_to_others"),
    "NothingWrong": ("wrong_credentials_are_invalid",),
    "NothingForged": ("forged_credentials_are_not_admitted",),
    "ForgedThatIsRight": ("forged_credentials_are_not_admitted",),
    "SilentAboutExpiry": ("expired_credentials_are_invalid",),
    "SameCredentials": ("good_credentials_are_new_whenever_they_are_read", "concurrent_calls_get_their_own_answers"),
    "SilentAboutOnce": ("concurrent_calls_get_their_own_answers", "it_can_be_closed_and_built_again"),
}

ONCE = {
    "test_good_credentials_are_new_whenever_they_are_read",
    "test_good_credentials_are_admitted_once",
    "test_of_concurrent_calls_with_the_same_credentials_one_is_admitted",
}
"""The cases that run only with `one_time = True`."""

CONTRACT = """
import secrets
from contextlib import asynccontextmanager

import acme_door
from jimsapi.testing import AuthProviderContract, DoesNotApply


class TestSound(AuthProviderContract):
    distribution = "Acme_Door"
    version = "Sound"
    secrets = ("sesame-sesame",)
    good = {
        "ann": {"x-door": "ann/2999/sesame-sesame"},
        "ben": {"x-door": "ben/2999/sesame-sesame"},
    }
    foreign = ({"authorization": "Bearer sesame-sesame"},)
    malformed = ({"x-door": "ann"}, {"x-door": "ann/soon/sesame-sesame"})
    wrong = ({"x-door": "ann/2999/simsim"}, {"x-door": "zoe/2999/sesame-sesame"})
    expired = ({"x-door": "ann/2019/sesame-sesame"},)
    denied = ({"x-door": "eve/2999/sesame-sesame"},)
    half_configured = ({"door_secret": "sesame-sesame"}, {"door_place": "north"})

    @property
    def settings(self):
        return {"door_secret": "sesame-sesame", "door_place": "north", "door_version": self.version}

    @property
    def unconfigured(self):
        return {"door_version": self.version}

    @asynccontextmanager
    async def outage(self):
        with acme_door.outage():
            yield


class TestOpenByHalf(TestSound):
    version = "OpenByHalf"
    half_configured = ({"door_place": "north", "door_version": version},)


class TestAdmitsByHalf(TestSound):
    version = "AdmitsByHalf"
    half_configured = ({"door_place": "north", "door_version": version},)
    good = {"ann": {"x-door": "ann/2999/sesame-sesame"}}


class TestTextOption(TestSound):
    settings = {"door_plain": "sesame-sesame"}


class TestNotInstalled(TestSound):
    distribution = "acme-window"


class TestNoSecretOfItsOwn(TestSound):
    secrets = ("simsalabim",)


class TestWrongThatIsRight(TestSound):
    wrong = ({"x-door": "ann/2999/sesame-sesame"},)


class TestNothingWrong(TestSound):
    wrong = ()


class TestNothingForged(TestSound):
    forged = ()


class TestForgedThatIsRight(TestSound):
    forged = ({"x-door": "ann/2999/sesame-sesame"},)


class TestSilentAboutExpiry(TestSound):
    expired = AuthProviderContract.expired


class TestKnowsThemAgain(TestSound):
    version = "KnowsThemAgain"


class TestOffersServers(TestSound):
    version = "OffersServers"


def signed(person, year=2999):
    nonce = secrets.token_hex(8)
    return {"x-door": f"{person}/{year}/{nonce}:{acme_door.sign('sesame-sesame', nonce)}"}


class TestOneTime(TestSound):
    version = "OneTime"
    one_time = True

    @property
    def good(self):
        return {"ann": signed("ann"), "ben": signed("ben")}

    @property
    def expired(self):
        return [signed("ann", 2019)]

    @property
    def denied(self):
        return [signed("eve")]

    def secrets_of(self, credential):
        return [credential["x-door"].rpartition(":")[2]]


class TestAdmitsTwice(TestOneTime):
    version = "AdmitsTwice"


class TestSignedByForm(TestOneTime):
    version = "SignedByForm"


class TestNotesLate(TestOneTime):
    version = "NotesLate"


class TestLogsTheSignature(TestOneTime):
    version = "LogsTheSignature"


class TestComparesSignatures(TestOneTime):
    version = "ComparesSignatures"


class TestSameCredentials(TestOneTime):
    good = {"ann": signed("ann")}


class TestSilentAboutOnce(TestOneTime):
    one_time = False
    good = {"ann": signed("ann"), "ben": signed("ben")}

    @asynccontextmanager
    async def opened(self, given=None):
        # A provider whose nonces are in a shared place.
        async with super().opened(given) as provider:
            provider.used = acme_door.SHARED
            yield provider


class TestWithoutDates(TestSound):
    expired = DoesNotApply("a door knows no date")
    outage = DoesNotApply("it asks nobody")


class TestDatedAgain(TestWithoutDates):
    expired = TestSound.expired

    def test_holders_without_access_are_denied(self):
        raise ValueError("a case of its own")


class TestDatedAgainAndChanged(TestDatedAgain):
    pass
"""


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> ContractRun:
    folder = tmp_path_factory.mktemp("doors")
    return ContractRun(
        folder,
        "acme-door",
        "doors.py",
        CONTRACT,
        FAULTS,
        ("TestKnowsThemAgain", "TestOffersServers", "TestWithoutDates", "TestDatedAgain", "TestOneTime"),
    )


def test_a_provider_that_keeps_the_contract_passes_every_case(ran: ContractRun) -> None:
    for version in ("TestSound", "TestKnowsThemAgain", "TestOffersServers"):
        assert ran.of_class(version) == dict.fromkeys(cases_of(AuthProviderContract) - ONCE)


def test_a_provider_that_accepts_each_credential_once_passes_every_case(ran: ContractRun) -> None:
    assert ran.of_class("TestOneTime") == dict.fromkeys(cases_of(AuthProviderContract))


def test_a_failure_names_the_declaration_that_a_provider_of_such_credentials_lacks(ran: ContractRun) -> None:
    said = ran.failure("SilentAboutOnce", "it_can_be_closed_and_built_again")
    assert "if it accepts each credential only once, declare one_time = True" in said


@pytest.mark.parametrize(("version", "case"), pairs(FAULTS))
def test_a_provider_that_breaks_one_thing_fails_the_case_of_it(ran: ContractRun, version: str, case: str) -> None:
    assert ran.failure(version, case)


def test_every_case_was_seen_to_fail(ran: ContractRun) -> None:
    assert ran.never_failed(AuthProviderContract) == set()


def test_a_failure_says_what_was_leaked_by_number_only(ran: ContractRun) -> None:
    assert "must stay hidden were logged" in ran.failure("LogsTheSecret", "no_secret")


def test_what_does_not_apply_is_left_out_and_not_skipped(ran: ContractRun) -> None:
    said = ran.of_class("TestWithoutDates")
    assert set(said.values()) == {None}
    left_out = cases_of(AuthProviderContract) - said.keys()
    assert left_out == ONCE | {
        "test_expired_credentials_are_invalid",
        "test_in_an_outage_it_is_unavailable_and_admits_nobody",
        "test_in_an_outage_the_server_answers_503_with_retry_after",
    }


def test_what_applies_again_in_a_class_derived_further_is_run_again(ran: ContractRun) -> None:
    for name in ("TestDatedAgain", "TestDatedAgainAndChanged"):
        assert "test_expired_credentials_are_invalid" in ran.of_class(name)
        assert "test_in_an_outage_it_is_unavailable_and_admits_nobody" not in ran.of_class(name)


def test_a_case_that_a_class_puts_in_the_place_of_the_contract_s_stays(ran: ContractRun) -> None:
    for version in ("DatedAgain", "DatedAgainAndChanged"):
        assert "a case of its own" in ran.failure(version, "holders_without_access_are_denied")


def test_what_is_not_declared_fails_and_says_what_to_declare(ran: ContractRun) -> None:
    said = ran.failure("SilentAboutExpiry", "expired")
    assert "TestSilentAboutExpiry does not declare `expired`: give credentials that were good once, or Does" in said


def test_a_reason_must_be_given() -> None:
    with pytest.raises(ValueError, match="say why"):
        DoesNotApply(" ")
