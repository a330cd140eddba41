"""The runbooks: a server is brought into each state, and shows what the page quotes. The page's commands are executed.

The runbooks of PostgreSQL are tested beside its plugin.
"""

import asyncio
import re
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from uuid import UUID

import httpx
import pytest

from tests.command import refusal, run_command
from tests.docs.runbooks import Operator, Runbook, anchors, logs, quotes, shown
from tests.docs.snippets import ROOT
from tests.faults.disk_image import Disk
from tests.monitoring.observed import (
    ADMITTED,
    CHAT,
    SHAKY,
    Observed,
    begin,
    chat,
    rejecting_receiver,
    trouble,
    troubled,
)
from tests.monitoring.prometheus import Prometheus, alerts
from tests.ports import free_port
from tests.runs.receiver import OK, SECRET, Receiver, answer
from tests.waiting import eventually

pytestmark = pytest.mark.anyio

SCRIPTED = ("--app", "tests.apps.scripted:app")
BLOCKING = ("--app", "tests.apps.blocking:app")
HELLO = {"contact_id": "ann", "message": "hi"}
FIRST_LOOK, STATE = Runbook("before-you-need-them").blocks("sh")[1:]


def fires(prometheus: Prometheus, alert: str, runbook: Runbook) -> None:
    """Wait until an alert fires, which the runbook names and which leads to it."""
    assert alert in runbook.alerts()
    fired = eventually(lambda: prometheus.firing().get(alert))
    assert fired["annotations"]["runbook_url"].endswith(f"#{runbook.anchor}")


def holds(prometheus: Prometheus, runbook: Runbook, where: str = "metric") -> None:
    """Wait until an expression of the runbook returns a series."""
    eventually(lambda: prometheus.query(runbook.quoted(where)))


def answers(served: Observed, runbook: Runbook, path: str, row: str) -> None:
    """Wait until a path answers as the runbook says."""
    with served.client() as client:
        eventually(lambda: quotes(runbook.quoted(row), shown(client.get(path))))


def has_line(served: Observed, quoted: str) -> None:
    """Wait until the log has a line."""
    eventually(lambda: logs(quoted, served.stderr))


def unused_ports() -> tuple[str, ...]:
    """Options for `check --connect`, which refuses ports that are taken."""
    return "--port", str(free_port()), "--metrics-port", "0"


@contextmanager
def activated(folder: Path) -> Iterator[Operator]:
    """A server that logs JSON, on a socket that its manager has opened, and its operator."""
    metrics_port, log_file = free_port(), folder / "log"
    options = ("--log-format", "json", "--port", "1", "--store", "memory:")
    metrics = ("--metrics-host", "127.0.0.1", "--metrics-port", str(metrics_port))
    command = [sys.executable, "-m", "jimsapi", *SCRIPTED, *options, *metrics]
    with socket.create_server(("127.0.0.1", 0)) as passed, log_file.open("wb") as log:
        script = f'exec 3<&{passed.fileno()}; export LISTEN_PID=$$ LISTEN_FDS=1; exec "$@"'
        process = subprocess.Popen(
            ["bash", "-c", script, "bash", *command], cwd=ROOT, pass_fds=(passed.fileno(),), stdout=log, stderr=log
        )
        url = f"http://127.0.0.1:{passed.getsockname()[1]}"
        try:
            yield Operator(url, f"http://127.0.0.1:{metrics_port}/metrics", process.pid, log_file, folder)
        finally:
            process.kill()
            process.wait()


@contextmanager
def started(folder: Path) -> Iterator[Operator]:
    """A server that logs text, and its operator."""
    with Observed(*SCRIPTED) as served:
        yield Operator.of(served, folder)
        served.stop(signal.SIGKILL)


@pytest.mark.parametrize("serve", [started, activated], ids=["as text", "as JSON, on a socket of the service manager"])
def test_the_first_look_shows_the_state_of_a_server_and_where_its_pipelines_wait(
    tmp_path: Path, serve: Callable[[Path], AbstractContextManager[Operator]]
) -> None:
    with serve(tmp_path) as operator:
        hold = """curl --silent --retry 9 "$URL/api/v1/runs" --json '{"contact_id": "ann", "message": "hold door"}'"""
        assert '"run_id"' in operator.run(hold)
        looked = operator.run(FIRST_LOOK)
        assert looked.startswith('{"status":"ok"} 200\n')
        assert "\njims_runs_open 1.0\n" in looked
        assert "NO AUTHENTICATION IS CONFIGURED" in looked
        state = operator.run(STATE)
        assert "SIGUSR1: 1 runs are open, 0 of them wait" in state
        assert "Scripted.do (" in state


async def test_server_down(tmp_path: Path) -> None:
    runbook = Runbook("server-down")
    example, interrupted = runbook.blocks("log")
    options = (*SCRIPTED, "--store", "sqlite:///jims.db")
    with Observed(*options, folder=tmp_path) as served, Prometheus(served.metrics_port) as prometheus:
        second = run_command(*options, "--port", "0", "--metrics-port", "0", cwd=tmp_path)
        assert quotes(example.strip(), refusal(second))
        checked = run_command("check", "--connect", *options, *unused_ports(), cwd=tmp_path)
        assert quotes(example.strip(), refusal(checked))
        async with served.async_client() as callers:
            await begin(callers, "ann", "hold door")
            await chat(callers, "bob", "reached door")
        served.stop(signal.SIGKILL)
        with pytest.raises(httpx.ConnectError), served.client() as client:
            client.get("/readyz")
        holds(prometheus, runbook)
        fires(prometheus, "JimsapiDown", runbook)
        served.start()
        assert " serves " in Operator.of(served, tmp_path).run(runbook.blocks("sh")[0])
        assert logs(interrupted.strip(), served.stderr)
        assert logs(runbook.quoted("log at the end"), served.stderr)
        answers(served, runbook, "/readyz", "`/readyz` at the end")
        holds(prometheus, runbook, "metric at the end")


async def test_disk_full(disk: Disk, tmp_path: Path) -> None:
    runbook = Runbook("disk-full")
    database = disk.folder / "jims.db"
    options = (*SCRIPTED, "--store", f"sqlite:///{database}")
    with Observed(*options, env=disk.env) as served, Prometheus(served.metrics_port) as prometheus:
        async with served.async_client() as client:
            disk.fill()
            refused = await chat(client, "ann", "hi")
            assert quotes(runbook.quoted("client"), shown(refused))
            assert refused.headers["retry-after"] == "5"
            answers(served, runbook, "/readyz", "`/readyz`")
            answers(served, runbook, "/healthz", "`/healthz`")
            has_line(served, runbook.quoted("log"))
            await chat(client, "ann", "hi")
            holds(prometheus, runbook)
            async with asyncio.timeout(30):
                while "JimsapiStoreFails" not in prometheus.firing():
                    await chat(client, "ann", "hi")
            # The alert leads to the runbook of the store, which leads here by the reason.
            assert "JimsapiStoreFails" in runbook.alerts()
            operator = Operator.of(served, tmp_path, DATABASE=database)
            assert operator.run(runbook.blocks("sh")[0]).count("Mounted on") == 2
            disk.empty()
            assert quotes(runbook.quoted("client at the end"), shown(await chat(client, "ann", "hi")))
        answers(served, runbook, "/readyz", "`/readyz` at the end")
        has_line(served, runbook.quoted("log at the end"))


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    (tmp_path / "disk").mkdir()
    disk = Disk(tmp_path / "disk", tmp_path)
    disk.begin()
    return disk


async def test_event_loop_blocked(tmp_path: Path) -> None:
    runbook = Runbook("event-loop-blocked")
    with Observed(*BLOCKING) as served, Prometheus(served.metrics_port) as prometheus:
        async with served.async_client() as client:
            blocking = asyncio.create_task(chat(client, "ann", "sleep 9"))
            await asyncio.to_thread(has_line, served, runbook.quoted("log"))
            with pytest.raises(httpx.ReadTimeout):
                await client.get("/readyz", timeout=1)
            await asyncio.to_thread(fires, prometheus, "JimsapiEventLoopBlocked", runbook)
            await asyncio.to_thread(holds, prometheus, runbook)
            assert (await blocking).status_code == 200
        answers(served, runbook, "/readyz", "`/readyz` at the end")
        holds(prometheus, runbook, "metric at the end")
        has_line(served, runbook.quoted("log at the end, without a restart"))
        assert "time.sleep" in Operator.of(served, tmp_path).run(runbook.blocks("sh")[0])


async def test_event_loop_blocked_for_ever(tmp_path: Path) -> None:
    [hung] = Runbook("event-loop-blocked").blocks("log")
    options = ("--app", "tests.apps.paced:app", "--store", "sqlite:///jims.db", "--drain-time", "2")
    with Observed(*options, folder=tmp_path) as served:
        async with served.async_client() as client:
            with pytest.raises(httpx.ReadTimeout):
                await client.post(CHAT, json={"contact_id": "ann", "message": "a block"}, timeout=1)
        assert served.stop() == 0
        assert logs(hung.strip(), served.stderr)
        served.start()
        assert logs(Runbook("server-down").blocks("log")[1].strip(), served.stderr)


async def test_stuck_run(tmp_path: Path) -> None:
    runbook = Runbook("stuck-run")
    find, identify, cancel = runbook.blocks("sh")
    [cancelled], [ignored], [abandoned] = (runbook.blocks(language) for language in ("http", "log", "promql"))
    with Observed(*SCRIPTED, "--store", "sqlite:///jims.db", folder=tmp_path) as served:
        async with served.async_client() as client:
            holding = asyncio.create_task(chat(client, "ann", "hold door"))
            await chat(client, "cid", "reached door")
            await begin(client, "ann", "hi")
            # A Prometheus that begins now has seen no run end.
            with Prometheus(served.metrics_port) as prometheus:
                answers(served, runbook, "/readyz", "`/readyz`")
                holds(prometheus, runbook)
                holds(prometheus, runbook, "metric, age of the oldest run")
                fires(prometheus, "JimsapiRunStuck", runbook)
                operator = Operator.of(served, tmp_path, STORE="sqlite:///jims.db")
                assert "Scripted.do (" in operator.run(find)
                [_, row] = operator.run(identify).splitlines()
                Operator.of(served, tmp_path, KEY="none", RUN=row.split()[0]).run(cancel)
                assert quotes(cancelled.strip(), shown(await holding))
                holds(prometheus, runbook, "metric at the end")
                stubborn = await begin(client, "bob", "stubborn")
                await chat(client, "cid", "reached stubborn")
                Operator.of(served, tmp_path, KEY="none", RUN=stubborn).run(cancel)
                has_line(served, ignored.strip())
                eventually(lambda: prometheus.query(abandoned.strip()))
                fires(prometheus, "JimsapiPipelinesAbandoned", runbook)
                assert served.stop() == 0
                served.start()
                holds(prometheus, runbook, "metric at the end, after a restart")


async def test_runs_that_wait_do_not_count_as_stuck(tmp_path: Path) -> None:
    with Observed(*SCRIPTED, folder=tmp_path) as served:
        async with served.async_client() as client:
            held = await begin(client, "ann", "hold door")
            await begin(client, "ann", "hi")
            with Prometheus(served.metrics_port) as prometheus:
                eventually(lambda: prometheus.query("jims_runs_open == 2 and jims_runs_waiting == 1"))
                assert prometheus.query(Runbook("stuck-run").quoted("metric"))[0]["value"][1] == "1"
            await client.post(f"/api/v1/runs/{held}/cancel")


async def test_pipelines_that_take_too_long(tmp_path: Path) -> None:
    runbook = Runbook("stuck-run")
    options = ("--app", "tests.apps.paced:app", "--run-timeout", "1")
    with Observed(*options) as served, Prometheus(served.metrics_port) as prometheus:
        async with served.async_client() as client:
            assert shown(await chat(client, "ann", "a now")).startswith("200 ")
            for _ in range(2):
                late = await asyncio.gather(*(chat(client, str(number), "a wait 30") for number in range(8)))
                assert all(quotes(runbook.quoted("client, after `--run-timeout`"), shown(answer)) for answer in late)
                # `increase` does not see with what number a counter appears.
                eventually(lambda: prometheus.query('jims_pipeline_runs_total{status="failure"} >= 8'))
        fires(prometheus, "JimsapiPipelineFails", runbook)


async def test_flood(tmp_path: Path) -> None:
    runbook = Runbook("flood")
    with Observed(*SCRIPTED, "--max-runs", "2") as served, Prometheus(served.metrics_port) as prometheus:
        async with served.async_client() as client:
            held = [await begin(client, contact, "hold door") for contact in ("ann", "bob")]

            async def refused() -> httpx.Response:
                return await chat(client, "cid", "hi")

            answer = await refused()
            assert quotes(runbook.quoted("client"), shown(answer))
            assert answer.headers["retry-after"] == "1"
            has_line(served, runbook.quoted("log"))
            answers(served, runbook, "/readyz", "`/readyz`")
            holds(prometheus, runbook)
            await refused()
            fires(prometheus, "JimsapiOverloaded", runbook)
            operator = Operator.of(served, tmp_path)
            eventually(lambda: operator.run(runbook.blocks("sh")[0]).endswith("\n2\n"))
            assert "jims_runs_open 2.0" in operator.run(runbook.blocks("sh")[0])
            for run in held:
                await client.post(f"/api/v1/runs/{run}/cancel")
            assert (await refused()).status_code == 200
        at_the_end = runbook.quoted("metric at the end")
        eventually(lambda: prometheus.query(at_the_end.replace("5m", "2s")))
    limits = ("--identity-rate-limit", "1/min", "--contact-runs", "2", "--rate-limit", "60/min")
    with Observed(*SCRIPTED, *limits) as served, served.client() as caller:
        assert [caller.post(CHAT, json=HELLO).status_code for _ in range(2)] == [200, 429]


async def test_key_leak(tmp_path: Path) -> None:
    runbook = Runbook("key-leak")
    show, create, revoke = runbook.blocks("sh")
    keys = tmp_path / "keys.json"
    leaked = run_command("keys", "new", "website", "--scope", "chat", "--keys-file", str(keys), cwd=tmp_path)
    options = (*SCRIPTED, "--keys-file", str(keys))
    with Observed(*options) as served, Prometheus(served.metrics_port) as prometheus, served.client() as client:
        operator = Operator.of(served, tmp_path, KEYS=keys)
        body = {"contact_id": "visitor", "message": "hi"}

        def tell(key: str) -> str:
            return shown(client.post(CHAT, json=body, headers={"authorization": f"Bearer {key.strip()}"}))

        assert tell(leaked.stdout).startswith("200 ")
        assert operator.run(show).startswith("website: ")
        operator.run(create)
        operator.run(revoke)
        eventually(lambda: quotes(runbook.quoted("client with the leaked key"), tell(leaked.stdout)))
        assert quotes(runbook.quoted("client with the new key"), tell((tmp_path / "website-2.key").read_text()))
        holds(prometheus, runbook)


async def test_auth_provider_down_and_events_or_webhooks_lost(tmp_path: Path) -> None:
    auth, lost = Runbook("auth-provider-down"), Runbook("events-or-webhooks-lost")
    served = troubled(tmp_path)
    with served, Prometheus(served.metrics_port) as prometheus, rejecting_receiver() as receiver:
        with served.client(headers=SHAKY) as client:
            assert quotes(auth.quoted("client"), shown(client.post(CHAT, json=HELLO)))
            has_line(served, auth.quoted("log"))
            answers(served, auth, "/readyz", "`/readyz`")
            holds(prometheus, auth)
            client.post(CHAT, json=HELLO)
            fires(prometheus, "JimsapiAuthUnavailable", auth)
            (tmp_path / "token.txt").write_text("shaky")
            explain = auth.blocks("sh")[0].strip() + " --app tests.apps.scripted:app\n"
            operator = Operator.of(served, tmp_path)
            assert "answered 503 Authentication is unavailable" in operator.run(explain)
            await trouble(served, receiver)
            (tmp_path / "repaired").touch()
            served_again = shown(client.post(CHAT, json=HELLO, headers=ADMITTED))
            assert quotes(auth.quoted("client at the end"), served_again)
            assert client.post(CHAT, json=HELLO).status_code == 401
        for kind, alert in (("sink", "JimsapiEventsLost"), ("webhook", "JimsapiWebhooksLost")):
            has_line(served, lost.quoted(f"log of a {kind}"))
            holds(prometheus, lost, f"metric of a {kind}")
            assert lost.quoted(f"alert of a {kind}") == alert
            fires(prometheus, alert, lost)
        assert "its webhook at" in operator.run(lost.blocks("sh")[0])


async def test_a_sink_lags(tmp_path: Path) -> None:
    runbook = Runbook("a-sink-lags")
    look, decide = runbook.blocks("sh")
    port = free_port()
    url = ("--event-webhook-url", f"http://127.0.0.1:{port}/events", "--event-webhook-secret", SECRET)
    options = (*SCRIPTED, "--store", "sqlite:///jims.db", *url)
    with Observed(*options, folder=tmp_path) as served, Prometheus(served.metrics_port) as prometheus:
        operator = Operator.of(served, tmp_path, STORE="sqlite:///jims.db")
        with served.client() as client:
            assert client.post(CHAT, json=HELLO).status_code == 200
        has_line(served, runbook.quoted("log"))
        holds(prometheus, runbook)
        fires(prometheus, "JimsapiSinkLags", runbook)
        seen = operator.run(look)
        assert re.search(r"^event-webhook +3 ", seen, re.MULTILINE)
        assert "its events wait: ConnectError" in seen
        async with Receiver(answer(422), OK, port=port):
            await asyncio.to_thread(has_line, served, runbook.quoted("log of a dead letter"))
            await asyncio.to_thread(holds, prometheus, runbook, "metric of a dead letter")
            await asyncio.to_thread(fires, prometheus, runbook.quoted("alert of a dead letter"), runbook)
            decided = await asyncio.to_thread(operator.run, decide)
            assert "the receiver answered 422" in decided
            assert "1 dead letters of the sink event-webhook will be delivered again" in decided
            await asyncio.to_thread(holds, prometheus, runbook, "metric at the end")


async def test_restore_from_a_backup(tmp_path: Path) -> None:
    backup, restore = Runbook("restore-from-a-backup"), Runbook("restore-sqlite")
    database = tmp_path / "jims.db"
    options = (*SCRIPTED, "--store", f"sqlite:///{database}")
    with Observed(*options) as served, served.client() as client:
        names = {"DATABASE": database, "BACKUP": tmp_path / "backup.db"}
        operator = Operator.of(served, tmp_path, **names)
        thread = client.post(CHAT, json=HELLO).json()["thread_id"]
        assert operator.run(backup.blocks("sh")[0]) == "ok\n"
        after = client.post(CHAT, json={"contact_id": "bob", "message": "later"}).json()["thread_id"]
        served.stop()
        operator.run(restore.blocks("sh")[0])
        checked = run_command("check", "--connect", *options, *unused_ports(), cwd=tmp_path)
        assert checked.returncode == 0, checked.stderr
        served.start()
        answers(served, backup, "/readyz", "`/readyz` at the end")
    with closing(sqlite3.connect(database)) as connection:
        threads = {str(UUID(row[0])) for row in connection.execute("SELECT thread_id FROM threads")}
    assert thread in threads
    assert after not in threads


async def test_upgrade_and_rollback(tmp_path: Path) -> None:
    upgrade, rollback = Runbook("upgrade"), Runbook("rollback")
    options = (*SCRIPTED, "--store", "sqlite:///jims.db")
    with Observed(*options, folder=tmp_path) as served, Prometheus(served.metrics_port) as prometheus:
        [restart] = [block for block in upgrade.blocks("sh") if "kill" in block]
        Operator.of(served, tmp_path).run(restart)
        assert served.process is not None
        assert served.process.wait(30) == 0
        served.start()
        answers(served, upgrade, "/readyz", "`/readyz` at the end")
        assert logs(upgrade.quoted("log at the end"), served.stderr)
        holds(prometheus, upgrade, "metric at the end")
        assert upgrade.quoted("metric at the end") == rollback.quoted("metric at the end")
    with closing(sqlite3.connect(tmp_path / "jims.db")) as connection, connection:
        connection.execute("INSERT INTO jimsapi_schema SELECT max(version) + 1 FROM jimsapi_schema")
    older = run_command(*options, "--port", "0", "--metrics-port", "0", cwd=tmp_path)
    [_, refused] = rollback.blocks("log")
    assert quotes(refused.strip(), refusal(older))


def test_the_page_names_every_alert_and_its_links_lead_to_its_sections() -> None:
    text = (ROOT / "docs/runbooks.md").read_text(encoding="utf-8")
    assert set(alerts()) == set(re.findall(r"`(Jimsapi\w+)`", text))
    assert set(re.findall(r"\]\(#([^)]+)\)", text)) <= anchors().keys()
