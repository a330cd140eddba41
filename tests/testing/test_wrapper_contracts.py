"""Each case of the contracts of wrappers fails for a wrapper that breaks what it is about."""

from inspect import iscoroutinefunction
from pathlib import Path

import pytest

from jimsapi.testing import AsgiWrapperContract, PipelineWrapperContract, StoreWrapperContract, ThreadStoreContract
from jimsapi.testing.store_wrapper import CALLS
from jimsapi.threads import ThreadStore
from tests.testing.contract_run import ContractRun, Faults, cases_of, pairs

BOTH = {
    "AlwaysThere": ("without_configuration_it_builds_nothing",),
    "ShowsTheToken": ("neither_messages_nor_secrets_are_logged",),
    "StartsOnce": ("it_can_be_closed_and_built_again", "a_server_with_it_starts_stops_and_starts_again"),
    "NotInstalled": ("its_installed_distribution_is_found",),
}
PIPELINE_FAULTS: Faults = {
    **BOTH,
    "IsNotAsync": ("it_returns_an_async_pipeline",),
    "NeedsAFunction": ("pipelines_of_every_kind_answer_as_without_it",),
    "CallsTwice": ("it_calls_the_pipeline_once_and_its_events_reach_the_caller",),
    "AddsAMessage": ("it_calls_the_pipeline_once_and_its_events_reach_the_caller",),
    "SwallowsErrors": ("it_raises_what_the_pipeline_raises",),
    "RaisesErrorsOfItsOwn": ("it_raises_what_the_pipeline_raises",),
    "SwallowsCancellation": ("a_pipeline_that_is_cancelled_ends",),
    "RemembersTheContext": ("concurrent_runs_get_their_own_contexts",),
    "RemembersThePipeline": ("each_pipeline_is_wrapped_for_itself",),
    "LogsMessages": ("neither_messages_nor_secrets_are_logged",),
    "StopsAfterAFailure": ("a_server_answers_as_without_it",),
}
STORE_FAULTS: Faults = {
    **{version: cases for version, cases in BOTH.items() if version != "ShowsTheToken"},
    "PurgesWhenItCan": ("errors_of_the_store_are_raised",),
    "AcceptsInAnyCase": ("a_call_that_is_cancelled_ends",),
    "LogsPlans": ("neither_messages_nor_secrets_are_logged",),
    "KeepsContacts": ("a_server_answers_with_it",),
    "HidesTheName": ("it_answers_a_ping_and_has_a_name",),
    "LimitsPages": ("random_histories_match_the_model",),
}

ASGI_FAULTS: Faults = {
    **{version: cases for version, cases in BOTH.items() if version != "ShowsTheToken"},
    "ChangesTheStatus": ("answers_have_the_status_and_body_of_the_app",),
    "ReadsOnePart": ("a_body_in_parts_arrives_whole",),
    "HoldsAnswersBack": ("a_stream_is_not_held_back",),
    "KnowsHttpOnly": ("a_websocket_works",),
    "RemembersTheRequest": ("concurrent_requests_get_their_own_answers",),
    "SwallowsWhatIsRaised": ("what_the_app_raises_is_raised",),
    "LogsBodies": ("neither_bodies_nor_secrets_are_logged",),
}

CONTRACT = """
import os

from hypothesis import Phase, settings
from jimsapi.testing import AsgiWrapperContract, PipelineWrapperContract, StoreWrapperContract

os.environ["JIMSAPI_STORE_EXAMPLES"] = "5"
settings.register_profile("first failure", phases=[Phase.generate])
settings.load_profile("first failure")


class TestSound({kind}WrapperContract):
    distribution = "acme-watch"
    version = "Sound"
    secrets = ("sesame-sesame",)

    @property
    def settings(self):
        return {{"watch_token": "sesame-sesame", **self.unconfigured}}

    @property
    def unconfigured(self):
        return {{"watch_{option}": self.version}}


class TestNotInstalled(TestSound):
    distribution = "acme-clock"
"""
YIELDS = """

class TestYields(TestSound):
    version = "Yields"
"""


def run(folder: Path, kind: str, faults: Faults, more: str = "", whole: tuple[str, ...] = ()) -> ContractRun:
    contract = CONTRACT.format(kind=kind, option=kind.lower()) + more
    return ContractRun(folder, "acme-watch", "wrappers.py", contract, faults, whole)


@pytest.fixture(scope="module")
def pipelines(tmp_path_factory: pytest.TempPathFactory) -> ContractRun:
    return run(tmp_path_factory.mktemp("pipelines"), "Pipeline", PIPELINE_FAULTS, YIELDS, ("TestYields",))


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> ContractRun:
    return run(tmp_path_factory.mktemp("stores"), "Store", STORE_FAULTS)


@pytest.mark.parametrize("version", ["Sound", "Yields"])
def test_a_wrapper_of_pipelines_that_keeps_the_contract_passes_every_case(pipelines: ContractRun, version: str) -> None:
    assert pipelines.of_class(f"Test{version}") == dict.fromkeys(cases_of(PipelineWrapperContract))


@pytest.mark.parametrize(("version", "case"), pairs(PIPELINE_FAULTS))
def test_a_wrapper_of_pipelines_that_breaks_one_thing_fails_the_case_of_it(
    pipelines: ContractRun, version: str, case: str
) -> None:
    assert pipelines.failure(version, case)


def test_every_case_of_wrappers_of_pipelines_was_seen_to_fail(pipelines: ContractRun) -> None:
    assert pipelines.never_failed(PipelineWrapperContract) == set()


def test_a_wrapper_of_the_store_that_keeps_the_contract_passes_every_case(stores: ContractRun) -> None:
    said = stores.of_class("TestSound")
    assert set(said.values()) == {None}
    cases = {name.partition("[")[0] for name in said}
    assert cases_of(StoreWrapperContract) - cases == {
        "test_everything_is_there_after_the_store_is_opened_again",
        "test_positions_and_dead_letters_are_there_after_the_store_is_opened_again",
        "test_they_are_there_after_the_store_is_opened_again",
    }


@pytest.mark.parametrize(("version", "case"), pairs(STORE_FAULTS))
def test_a_wrapper_of_the_store_that_breaks_one_thing_fails_the_case_of_it(
    stores: ContractRun, version: str, case: str
) -> None:
    assert stores.failure(version, case)


def test_the_contract_of_wrappers_of_the_store_calls_every_method() -> None:
    public = {name for name in vars(ThreadStore) if not name.startswith("_")}
    assert CALLS.keys() == {name for name in public if iscoroutinefunction(getattr(ThreadStore, name))}


def test_every_case_of_its_own_was_seen_to_fail(stores: ContractRun) -> None:
    assert stores.never_failed(StoreWrapperContract) <= cases_of(ThreadStoreContract)


@pytest.fixture(scope="module")
def apps(tmp_path_factory: pytest.TempPathFactory) -> ContractRun:
    return run(tmp_path_factory.mktemp("apps"), "Asgi", ASGI_FAULTS)


def test_a_wrapper_of_the_asgi_app_that_keeps_the_contract_passes_every_case(apps: ContractRun) -> None:
    assert apps.of_class("TestSound") == dict.fromkeys(cases_of(AsgiWrapperContract))


@pytest.mark.parametrize(("version", "case"), pairs(ASGI_FAULTS))
def test_a_wrapper_of_the_asgi_app_that_breaks_one_thing_fails_the_case_of_it(
    apps: ContractRun, version: str, case: str
) -> None:
    assert apps.failure(version, case)


def test_every_case_of_wrappers_of_the_asgi_app_was_seen_to_fail(apps: ContractRun) -> None:
    assert apps.never_failed(AsgiWrapperContract) == set()
