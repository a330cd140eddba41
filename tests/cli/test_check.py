"""`jimsapi check`: it refuses what a start refuses, in the same words; `--strict` and `--connect`."""

import os
import re
import signal
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import httpx
import pytest
import trustme

from tests.command import break_websockets, hide_websockets, refusal, run_command
from tests.plugins.distributions import install
from tests.raw import connect, request
from tests.serving import Served

BOT = "async def app(ctx):\n    ctx.send_message('hi')\n"
QUIET = {"--app": "bot", "--host": "127.0.0.1", "--port": "0", "--metrics-port": "0", "--store": "memory:"}
KEY = "a-key-that-is-long-enough"
PORT = str(20_000 + os.getpid() % 10_000)


@pytest.fixture
def bot(site: Path) -> Path:
    (site / "bot.py").write_text(BOT)
    (site / "folder").mkdir()
    (site / "garbage.db").write_bytes(b"this is no database, whatever its name says. " * 100)
    authority = trustme.CA()
    authority.issue_cert("localhost").cert_chain_pems[0].write_to_path(site / "cert.pem")
    authority.issue_cert("localhost").private_key_pem.write_to_path(site / "other_key.pem")
    return site


def flags(**given: str) -> list[str]:
    named = {"--" + name.replace("_", "-"): value for name, value in given.items()}
    return [part for pair in {**QUIET, **named}.items() for part in pair]


@pytest.mark.parametrize(
    "given",
    [
        {"host": "no.such.host.invalid"},
        {"host": "203.0.113.7"},
        {"host": "::zz"},
        {"host": "a..b"},
        {"port": "65536"},
        {"metrics_host": "no.such.host.invalid", "metrics_port": PORT},
        {"metrics_host": "203.0.113.7", "metrics_port": PORT},
        {"metrics_host": "127.0.0.1", "metrics_port": PORT, "port": PORT},
        {"metrics_port": PORT, "port": PORT},
        {"forwarded_allow_ips": "10.0.0.1/8"},
        {"forwarded_allow_ips": "10.0.0.1,proxy"},
        {"forwarded_allow_ips": "*,10.0.0.1"},
        {"forwarded_allow_ips": "10.0.0.256"},
        {"store": "sqlite:///missing/jims.db"},
        {"store": "sqlite:///folder"},
        {"store": "sqlite:///garbage.db"},
        {"store": "nonsense"},
        {"ssl_certfile": "no.pem"},
        {"ssl_certfile": "bot.py"},
        {"ssl_certfile": "cert.pem"},
        {"ssl_certfile": "cert.pem", "ssl_keyfile": "other_key.pem"},
        {"ssl_keyfile": "other_key.pem"},
        {"ssl_ca_certs": "cert.pem"},
        {"app": "nowhere"},
        {"app": "bot:nothing"},
        {"auth_order": "door"},
        {"rate_limit": "often"},
        {"websocket_origin": "shop"},
        {"webhook_secret": "sesame"},
        {"keys_file": "no.json"},
        {"drain_time": "1"},
        {"workers": "2"},
        {"log_format": "xml"},
    ],
    ids=lambda given: ",".join(f"{name}={value}" for name, value in given.items()),
)
def test_check_refuses_what_a_start_refuses_and_says_the_same(bot: Path, given: dict[str, str]) -> None:
    checked = refusal(run_command("check", *flags(**given), cwd=bot))
    started = refusal(run_command(*flags(**given), cwd=bot))
    assert re.split(r" \(|;", checked)[0] == re.split(r" \(|;", started)[0]
    assert {path.name for path in bot.iterdir()} <= {
        "bot.py", "folder", "garbage.db", "garbage.db.lock", "cert.pem", "other_key.pem", "__pycache__",
    }  # fmt: skip


def test_it_says_what_a_caller_may_send_and_what_is_kept(bot: Path) -> None:
    unlimited = run_command("check", *flags(), cwd=bot).stdout
    assert "what a caller may send: as many messages as --max-runs allows; no rate limit and no budget" in unlimited
    assert "what is kept: threads until they are deleted; records of finished runs for 30 days" in unlimited
    given = flags(rate_limit="60/min", identity_runs="4", cost_budget="5/day", expire_threads="90d", keep_runs="1.5")
    limited = run_command("check", *given, cwd=bot).stdout
    assert "what a caller may send: --rate-limit 60/min, --identity-runs 4, --cost-budget 5/day\n" in limited
    assert "what is kept: threads for 90d without a new event; records of finished runs for 1.5 days\n" in limited


@pytest.mark.parametrize("text", ["*", "10.0.0.1", " 10.0.0.1 , 192.168.0.0/16,::1 ", "10.0.0.1,"])
def test_addresses_and_networks_of_proxies_are_accepted(bot: Path, text: str) -> None:
    assert run_command("check", *flags(forwarded_allow_ips=text), cwd=bot).returncode == 0


# --strict


def test_strict_refuses_a_public_api_and_accepts_one_with_a_key(bot: Path) -> None:
    public = run_command("check", "--strict", *flags(), cwd=bot)
    assert (public.returncode, public.stderr.splitlines()[-1]) == (1, "jimsapi: 1 warning, and --strict allows none")
    assert "NO AUTHENTICATION" in public.stderr
    assert "who may enter: EVERYBODY" in public.stdout
    assert run_command("check", *flags(), cwd=bot).returncode == 0
    private = run_command("check", "--strict", *flags(api_key=KEY), cwd=bot)
    assert (private.returncode, private.stderr) == (0, "")


@pytest.mark.parametrize(
    ("env", "warning"),
    [
        ({"JIMS_ENABLE_SENTRY": "1"}, "jimsapi-sentry is not installed: NOTHING IS REPORTED"),
        ({"JIMS_API_KYE": KEY}, "JIMS_API_KYE is set but is not an option; did you mean JIMS_API_KEY?"),
        ({"JIMS_STOR_FILE": "x"}, "JIMS_STOR_FILE is set but is not an option; did you mean JIMS_STORE_FILE?"),
        (
            {"JIMS_MAX_RUNS": "1", "JIMS_MAX_RUNS_FILE": "x"},
            "JIMS_MAX_RUNS_FILE is not read, since JIMS_MAX_RUNS is set too",
        ),
        ({"JIMS_API_KEY": "short"}, "might be guessed"),
    ],
)
def test_strict_refuses_each_warning(bot: Path, env: dict[str, str], warning: str) -> None:
    key = {} if "JIMS_API_KEY" in env else {"api_key": KEY}
    strict = run_command("check", "--strict", *flags(**key), cwd=bot, env=env)
    assert strict.returncode == 1
    assert warning in strict.stderr
    assert run_command("check", *flags(**key), cwd=bot, env=env).returncode == 0


def test_a_missing_package_for_websockets_is_warned_of_by_check_and_by_the_start(bot: Path) -> None:
    hide_websockets(bot)
    strict = run_command("check", "--strict", *flags(api_key=KEY), cwd=bot)
    assert strict.returncode == 1
    assert "NO WEBSOCKET IS ACCEPTED on /api/v1/chat/ws" in strict.stderr
    assert "pip install 'jimsapi[websockets]'" in strict.stderr
    with Served("--app", "bot", folder=bot) as served:
        assert served.stop() == 0
        assert served.stderr.count("NO WEBSOCKET IS ACCEPTED") == 1


@pytest.mark.parametrize("error", ["ImportError", "RuntimeError"])
def test_a_broken_package_for_websockets_is_warned_of_by_check_and_refuses_handshakes_alone(
    bot: Path, error: str
) -> None:
    break_websockets(bot, error)
    strict = run_command("check", "--strict", *flags(api_key=KEY), cwd=bot)
    assert strict.returncode == 1
    assert "NO WEBSOCKET IS ACCEPTED on /api/v1/chat/ws" in strict.stderr
    assert "; install the package websockets again" in strict.stderr
    handshake = {
        "connection": "upgrade",
        "upgrade": "websocket",
        "sec-websocket-version": "13",
        "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==",
    }
    with Served("--app", "bot", folder=bot) as served:
        for _ in range(2):
            refused = httpx.get(f"{served.url}/api/v1/chat/ws", headers=handshake)
            assert (refused.status_code, refused.json()) == (500, {"detail": "Internal Server Error"})
        assert httpx.get(f"{served.url}/healthz").status_code == 200
        assert served.stop() == 0
        assert served.stderr.count("NO WEBSOCKET IS ACCEPTED: ") == 2
        assert "Traceback" not in served.stderr


# --connect


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.name.startswith("jims.db")}


def test_connect_says_that_a_start_would_make_the_database_and_makes_none(bot: Path) -> None:
    checked = run_command("check", "--connect", *flags(store="sqlite:///jims.db"), cwd=bot)
    assert checked.returncode == 0, checked.stderr
    assert f"the store: {bot}/jims.db does not exist yet; a start creates it" in checked.stdout
    assert files(bot) == set()


def test_connect_opens_a_store_and_leaves_the_runs_in_it_alone(bot: Path) -> None:
    with Served("--store", "sqlite:///jims.db", folder=bot) as served, connect(served.port) as connection:
        chat = b'{"contact_id":"ann","message":"hold on"}'
        fields = ("content-type: application/json", f"content-length: {len(chat)}")
        connection.sendall(request("POST", "/api/v1/chat", *fields, body=chat))
        while statuses(bot) != ["running"]:
            time.sleep(0.02)
        served.stop(signal.SIGKILL)
    checked = run_command("check", "--connect", *flags(store="sqlite:///jims.db"), cwd=bot)
    assert checked.returncode == 0, checked.stderr
    assert f"it answers: store sqlite:///{bot}/jims.db" in checked.stdout
    assert statuses(bot) == ["running"]


def statuses(folder: Path) -> list[str]:
    with closing(sqlite3.connect(folder / "jims.db", timeout=10)) as connection:
        return [status for (status,) in connection.execute("SELECT status FROM jimsapi_runs")]


def test_connect_refuses_a_store_and_a_port_that_a_server_has_and_check_alone_does_not(bot: Path) -> None:
    with Served("--app", "bot", "--store", "sqlite:///jims.db", folder=bot) as served:
        port = {"port": str(served.port)}
        held = refusal(run_command("check", "--connect", *flags(store="sqlite:///jims.db"), cwd=bot))
        taken = refusal(run_command("check", "--connect", *flags(**port), cwd=bot))
        metrics = {"metrics_host": "127.0.0.1", "metrics_port": str(served.port)}
        taken_too = refusal(run_command("check", "--connect", *flags(**metrics), cwd=bot))
        for given in (port, metrics, {"store": "sqlite:///jims.db"}):
            assert run_command("check", *flags(**given), cwd=bot).returncode == 0
        with served.client() as client:
            assert client.get("/readyz").status_code == 200
    assert f"process {served.pid}" in held
    assert f"port {served.port} on 127.0.0.1 is in use" in taken
    assert f"the metrics port 127.0.0.1:{served.port} cannot be opened: Address already in use" in taken_too


def test_connect_refuses_a_database_of_a_newer_version(bot: Path) -> None:
    with Served("--app", "bot", "--store", "sqlite:///jims.db", folder=bot) as served:
        assert served.stop() == 0
    with closing(sqlite3.connect(bot / "jims.db")) as connection, connection:
        connection.execute("UPDATE jimsapi_schema SET version = 999")
    given = flags(store="sqlite:///jims.db")
    assert "a newer jimsapi made this database" in refusal(run_command("check", "--connect", *given, cwd=bot))
    assert run_command("check", *given, cwd=bot).returncode == 0


PROVIDER = """
from contextlib import asynccontextmanager
from jimsapi import *
from jimsapi.plugins.protocols import AuthUnavailable

class Door:
    name = "door"
    async def authenticate(self, connection): pass
    async def ping(self):
        {ping}

@hookimpl
def jimsapi_auth_provider(settings):
    @asynccontextmanager
    async def opened():
        print("opened")
        yield Door()
        print("closed")
    return opened()
"""


@pytest.mark.parametrize(
    ("ping", "message"),
    [
        ("pass", None),
        ("raise AuthUnavailable('the lock does not answer')", "auth provider door: the lock does not answer"),
        ("raise LookupError('no key')", "auth provider door: LookupError: no key"),
        ("raise SystemExit('no key')", "auth provider door: SystemExit: no key"),
    ],
)
def test_connect_opens_asks_and_closes_the_auth_providers(bot: Path, ping: str, message: str | None) -> None:
    install(bot, "acme-door", PROVIDER.format(ping=ping))
    checked = run_command("check", "--connect", *flags(), cwd=bot)
    assert checked.stdout.splitlines()[:2] == ["opened", "closed"]
    if message is None:
        assert checked.returncode == 0, checked.stderr
        assert "it answers: auth provider door" in checked.stdout
    else:
        assert message in refusal(checked)
    assert "opened" not in run_command("check", *flags(), cwd=bot).stdout


def test_connect_refuses_a_plugin_that_cannot_be_opened(bot: Path) -> None:
    broken = PROVIDER.format(ping="pass").replace('print("opened")', 'raise OSError("no route")')
    install(bot, "acme-door", broken)
    line = refusal(run_command("check", "--connect", *flags(), cwd=bot))
    assert "what jimsapi_auth_provider built could not be entered: OSError: no route" in line
