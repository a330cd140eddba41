"""The contract of stores fails for a store that cannot read its own files again."""

import pytest

from jimsapi.testing import ThreadStoreContract
from tests.testing.contract_run import ContractRun, Faults, cases_of, pairs

FIXED, RANDOM = "everything_is_there_after_the_store_is_opened_again", "random_histories_match_the_model"
FAULTS: Faults = {
    "LosesEverything": (FIXED, RANDOM),
    "LosesKeys": (FIXED, RANDOM),
    "LosesWhatWaits": (FIXED, RANDOM),
    "Undeclared": (FIXED, RANDOM),
}

CONTRACT = """
import os
from contextlib import asynccontextmanager

import acme_kept
from hypothesis import Phase, settings
from jimsapi.testing import DoesNotApply, ThreadStoreContract

os.environ["JIMSAPI_STORE_EXAMPLES"] = "40"
settings.register_profile("first failure", phases=[Phase.generate], derandomize=True)
settings.load_profile("first failure")


class TestSound(ThreadStoreContract):
    version = "Sound"

    @asynccontextmanager
    async def open_store(self):
        async with getattr(acme_kept, self.version)() as store:
            yield store

    @asynccontextmanager
    async def reopen_store(self, closed):
        async with closed.reopened() as store:
            yield store


class TestUndeclared(TestSound):
    reopen_store = ThreadStoreContract.reopen_store


class TestForgetful(TestSound):
    version = "LosesEverything"
    reopen_store = DoesNotApply("it is in memory")
"""


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> ContractRun:
    folder = tmp_path_factory.mktemp("stores")
    return ContractRun(folder, "acme-kept", "kept_stores.py", CONTRACT, FAULTS, ("TestForgetful",))


def test_a_store_that_keeps_the_contract_passes_every_case(ran: ContractRun) -> None:
    said = ran.of_class("TestSound")
    assert set(said.values()) == {None}
    assert {name.partition("[")[0] for name in said} == cases_of(ThreadStoreContract)


@pytest.mark.parametrize(("version", "case"), pairs(FAULTS))
def test_a_store_that_loses_something_when_it_is_closed_fails(ran: ContractRun, version: str, case: str) -> None:
    assert ran.failure(version, case)


def test_a_store_that_is_meant_to_lose_everything_passes(ran: ContractRun) -> None:
    said = ran.of_class("TestForgetful")
    assert set(said.values()) == {None}
    assert f"test_{FIXED}" not in said


def test_the_error_says_what_to_declare(ran: ContractRun) -> None:
    said = ran.failure("Undeclared", FIXED)
    assert "does not declare `reopen_store`: give an async context manager" in said
