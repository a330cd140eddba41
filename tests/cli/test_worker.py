"""`jimsapi worker`: what stops its start. The tests of jimsapi-nats have workers that run."""

from pathlib import Path

import pytest

from tests.command import refusal, run_command

APP = ("--app", "tests.apps.scripted:app", "--store", "memory:", "--metrics-port", "0")
ROOT = Path(__file__).parents[2]


def test_a_worker_without_a_queue_of_runs_does_not_start() -> None:
    text = refusal(run_command("worker", *APP, cwd=ROOT))
    assert "a worker needs a queue of background runs: set --nats-url and --nats-work" in text


@pytest.mark.parametrize("options", [("--workers", "2"), ("--reload",)])
def test_a_worker_is_one_process(options: tuple[str, ...]) -> None:
    text = refusal(run_command("worker", *APP, *options, cwd=ROOT))
    assert "a worker is one process, without --workers and --reload; start the command several times" in text


def test_a_worker_has_no_public_api_to_warn_of() -> None:
    assert "THE API IS PUBLIC" not in run_command("worker", *APP, cwd=ROOT).stderr.upper()


def test_a_worker_of_an_app_without_a_pipeline_does_not_start(tmp_path: Path) -> None:
    (tmp_path / "site_of_nothing.py").write_text("from jimsapi.asgi import App\n\napp = App()\n")
    text = refusal(run_command("worker", "--app", "site_of_nothing:app", "--metrics-port", "0", cwd=tmp_path))
    assert "is a jimsapi.asgi.App, which has no pipeline that answers messages" in text
