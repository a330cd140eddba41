"""A failed run is read again by the kind that its store has."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from jimsapi.runs.admission import PUBLIC
from jimsapi.runs.disclosure import Disclosure
from jimsapi.runs.errors import PipelineFailed, RunTimedOut
from jimsapi.runs.limits import RunLimits
from jimsapi.runs.result import stored_result
from jimsapi.threads.ids import uuid7
from jimsapi.threads.run import FailureKind, RunStatus, StoredRun
from tests.apps.scripted import Scripted
from tests.runs.serving import STORES, ended, inbound, make_store, serving, stored

PIPELINE_TEXT = str(PipelineFailed(ValueError("no")))
TIMEOUT_TEXT = str(RunTimedOut(30))
HIDING = Disclosure(hide=True)


def run_that_ended(error: str | None, failure: FailureKind | None, status: RunStatus = RunStatus.FAILED) -> StoredRun:
    """A run as a store shows it."""
    now = datetime.now(UTC)
    return StoredRun(
        uuid7(), uuid7(), "ann", status, now, now, now, failure,
        created_new_thread=True, error=error, streamed=0, events=[], message_id=uuid7(),
    )  # fmt: skip


@pytest.mark.parametrize("text", [PIPELINE_TEXT, TIMEOUT_TEXT, "no"])
def test_the_kind_counts_and_not_the_text(text: str) -> None:
    by_pipeline = run_that_ended(text, FailureKind.PIPELINE)
    too_long = run_that_ended(text, FailureKind.TIMEOUT)
    assert isinstance(stored_result(by_pipeline), PipelineFailed)
    assert isinstance(stored_result(too_long), RunTimedOut)
    assert [str(stored_result(run)) for run in (by_pipeline, too_long)] == [text, text]
    assert HIDING.stored(by_pipeline).error == f"Pipeline error: reference {by_pipeline.run_id}"
    assert HIDING.stored(too_long).error == text


@pytest.mark.parametrize("status", [RunStatus.CANCELLED, RunStatus.INTERRUPTED, RunStatus.COMPLETED])
def test_the_text_of_a_run_that_did_not_fail_is_shown_whatever_it_is(status: RunStatus) -> None:
    run = run_that_ended(PIPELINE_TEXT, None, status)
    assert HIDING.stored(run) is run


@pytest.mark.anyio
@pytest.mark.parametrize("store", STORES)
@pytest.mark.parametrize(
    ("script", "kind"),
    [
        ("raise it", FailureKind.PIPELINE),
        ("unstorable it", FailureKind.PIPELINE),
        ("hold on", FailureKind.TIMEOUT),
        ("send a", None),
    ],
)
async def test_a_run_is_stored_with_the_kind_of_its_failure(
    store: str, script: str, kind: FailureKind | None, tmp_path: Path
) -> None:
    limits = RunLimits(run_timeout=0.05 if kind is FailureKind.TIMEOUT else 60)
    async with serving(Scripted(), make_store(store, tmp_path), limits=limits) as service:
        run = service.begin(inbound(script), PUBLIC)
        await ended(service)
        found = await stored(service, run.run_id)
    assert (found.status is RunStatus.FAILED, found.failure) == (kind is not None, kind)
