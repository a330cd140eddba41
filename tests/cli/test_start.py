"""A start that fails, in one line; and a start that succeeds: what it says, and what it then does."""

import json
import os
import re
import resource
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
import trustme
from cryptography.hazmat.primitives import serialization
from openapi_spec_validator import validate

from jimsapi.builtin.client_certificate import CertificateOptions
from jimsapi.cli.options import ServerOptions
from jimsapi.cli.server_config import check_tls_files
from jimsapi.plugins import StartError
from tests.command import ROOT, python_path, refusal, run_command
from tests.ports import free_port
from tests.serving import Served
from tests.users import without_root

BOT = "async def app(ctx):\n    ctx.send_message(f'You said: {ctx.get_last_user_message()}')\n"
QUIET = ["--app", "bot", "--port", "0", "--metrics-port", "0"]


@pytest.fixture
def bot(site: Path) -> Path:
    (site / "bot.py").write_text(BOT)
    return site


@contextmanager
def taken_port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening.getsockname()[1]


@contextmanager
def closed(folder: Path) -> Iterator[None]:
    """Be a user who may not enter a folder."""
    folder.chmod(0)
    try:
        with without_root():
            yield
    finally:
        folder.chmod(0o700)


def chat(client: httpx.Client) -> httpx.Response:
    return client.post("/api/v1/chat", json={"contact_id": "ann", "message": "hi"})


def test_a_taken_port_is_one_line_and_touches_no_store(bot: Path) -> None:
    with taken_port() as port:
        given = ["--app", "bot", "--host", "127.0.0.1", "--port", str(port), "--metrics-port", "0"]
        line = refusal(run_command(*given, cwd=bot))
    assert f"port {port} on 127.0.0.1 is in use" in line
    assert "--port" in line
    assert not (bot / "jims.db").exists()


def test_a_taken_metrics_port_is_one_line(bot: Path) -> None:
    with taken_port() as port:
        given = ["--app", "bot", "--port", "0", "--metrics-host", "127.0.0.1", "--metrics-port", str(port)]
        line = refusal(run_command(*given, cwd=bot))
    assert f"the metrics port 127.0.0.1:{port} cannot be opened" in line
    assert "--metrics-port" in line


@pytest.mark.parametrize("host", ["no.such.host.invalid", "203.0.113.7", "::zz"])
def test_a_host_that_is_not_ours_is_one_line(bot: Path, host: str) -> None:
    given = ["--app", "bot", "--host", host, "--port", "8080", "--metrics-port", "0"]
    assert f"cannot listen on {host}:8080" in refusal(run_command(*given, cwd=bot))


@pytest.mark.parametrize(
    ("store", "message"),
    [
        ("sqlite:///missing/jims.db", "missing"),
        ("sqlite:///folder", "folder"),
        ("sqlite:///garbage.db", "garbage.db"),
        ("sqlite:///", "use sqlite:///relative.db"),
        ("sqlite:///x.db?mode=ro", "cannot have parameters"),
        ("postgresql://user:sesame@db/jims", "postgresql://***@db/jims: PostgreSQL needs jimsapi-postgres"),
        ("postgresql://postgres:postgres@db/x", "postgresql://***@db/x: PostgreSQL needs jimsapi-postgres"),
        ("postgresql+asyncpg://user:sesame@db/jims", "pip install jimsapi-postgres"),
        ("postgres://user:sesame@db/jims", "pip install jimsapi-postgres"),
        ("nonsense", "--store nonsense: no installed plugin keeps threads there"),
    ],
)
def test_an_unusable_store_is_one_line(bot: Path, store: str, message: str) -> None:
    (bot / "folder").mkdir()
    (bot / "garbage.db").write_bytes(b"this is no database, whatever its name says. " * 100)
    line = refusal(run_command(*QUIET, "--store", store, cwd=bot))
    assert message in line
    assert "sesame" not in line


def test_a_store_without_its_plugin_is_one_line_also_when_a_variable_names_it(bot: Path) -> None:
    env = {"JIMS_STORE": "postgresql://user:sesame@db/jims"}
    line = refusal(run_command(*QUIET, cwd=bot, env=env))
    assert "which is not installed: pip install jimsapi-postgres" in line
    assert "sesame" not in line


def test_a_store_without_its_plugin_is_one_line_also_when_the_app_carries_it(bot: Path) -> None:
    app = "from jimsapi import JimsApp\nasync def bot(ctx): pass\n"
    (bot / "bot.py").write_text(f"{app}app = JimsApp(bot, store='postgresql://user:sesame@db/jims')\n")
    line = refusal(run_command(*QUIET, cwd=bot))
    assert "which is not installed: pip install jimsapi-postgres" in line
    assert "sesame" not in line


@pytest.mark.parametrize("flag", ["--enable-sentry", "--sentry-personal-data"])
def test_a_flag_of_error_reporting_without_its_plugin_is_one_line(bot: Path, flag: str) -> None:
    line = refusal(run_command(*QUIET, flag, cwd=bot))
    assert f"{flag} is set, but jimsapi-sentry is not installed: pip install jimsapi-sentry" in line


def test_a_variable_of_error_reporting_without_its_plugin_is_a_loud_warning(bot: Path) -> None:
    """Other JIMS programs read it too."""
    with Served(
        "--app", "bot", folder=bot, env={"JIMS_ENABLE_SENTRY": "1", "JIMS_SENTRY_PERSONAL_DATA": "no"}
    ) as served:
        served.stop()
        log = served.stderr
    assert log.count("NOTHING IS REPORTED") == 1
    assert "JIMS_ENABLE_SENTRY is set, but jimsapi-sentry is not installed" in log
    assert "pip install jimsapi-sentry" in log


def test_a_store_that_another_process_holds_is_one_line_and_check_does_not_need_it(bot: Path) -> None:
    with Served("--app", "bot", "--store", "sqlite:///jims.db", folder=bot) as first:
        line = refusal(run_command(*QUIET, "--store", "sqlite:///jims.db", cwd=bot))
        checked = run_command("check", "--app", "bot", "--store", "sqlite:///jims.db", cwd=bot)
        with first.client() as client:
            assert chat(client).status_code == 200
    assert f"jims.db: it is locked by process {first.pid};" in line
    assert "PostgreSQL" in line
    assert checked.returncode == 0, checked.stderr


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["--ssl-certfile", "no.pem"], "there is no file no.pem"),
        (["--ssl-certfile", "bot.py"], "bot.py holds no certificate: --ssl-certfile names"),
        (["--ssl-certfile", "cert.pem"], "cert.pem holds no private key: --ssl-keyfile names"),
        (["--ssl-certfile", "cert.pem", "--ssl-keyfile", "other.pem"], "other.pem does not belong to the first"),
        (["--ssl-certfile", "cert.pem", "--ssl-keyfile", "encrypted.pem"], "encrypted.pem is encrypted"),
        (["--ssl-certfile", "cert.pem", "--ssl-keyfile", "cut.pem"], "the key in cut.pem cannot be used: "),
        (["--ssl-keyfile", "bot.py"], "--ssl-certfile"),
    ],
)
def test_an_unusable_certificate_is_one_line(bot: Path, files: list[str], message: str) -> None:
    authority = trustme.CA()
    own, other = authority.issue_cert("localhost"), authority.issue_cert("localhost")
    own.cert_chain_pems[0].write_to_path(bot / "cert.pem")
    other.private_key_pem.write_to_path(bot / "other.pem")
    key = own.private_key_pem.bytes()
    (bot / "cut.pem").write_bytes(key[:80] + key[-40:])
    encryption = serialization.BestAvailableEncryption(b"a pass phrase")
    encrypted = serialization.load_pem_private_key(key, None).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption
    )
    (bot / "encrypted.pem").write_bytes(encrypted)
    assert message in refusal(run_command(*QUIET, "--store", "memory:", *files, cwd=bot))


def test_a_certificate_in_a_folder_that_the_user_may_not_enter_is_one_line(bot: Path) -> None:
    folder = bot / "live"
    folder.mkdir()
    trustme.CA().issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(folder / "chain.pem")
    server = ServerOptions(ssl_certfile=folder / "chain.pem")
    with closed(folder), pytest.raises(StartError, match=r"chain\.pem cannot be read \(Permission denied\): let the"):
        check_tls_files(server, CertificateOptions())


def test_a_start_says_what_it_serves_where_with_which_store_plugins_and_auth(bot: Path) -> None:
    with Served("--app", "bot", "--store", "sqlite:///here.db", folder=bot) as served:
        assert served.stop() == 0
        log = served.stderr
        port = served.port
    assert f"serves bot (app) at http://127.0.0.1:{port}" in log
    assert f"http://127.0.0.1:{port}/docs" in log
    assert "here.db" in log
    assert "plugins: only the built-in ones" in log
    assert "auth: none, the API is public" in log
    assert "NO AUTHENTICATION IS CONFIGURED" in log
    assert "Traceback" not in log


def test_a_disk_on_which_a_database_cannot_grow_is_one_line_about_the_disk(bot: Path) -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_240, 10_240))

    command = [sys.executable, "-m", "jimsapi", *QUIET, "--store", "sqlite:///jims.db"]
    ran = subprocess.run(
        command,
        cwd=bot,
        env={**os.environ, "PYTHONPATH": python_path(bot), "PYTHONDONTWRITEBYTECODE": "1"},
        preexec_fn=limit,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    line = refusal(ran)
    assert f"{bot}/jims.db: the disk does not do what SQLite needs (disk I/O error, SQLITE_IOERR_" in line
    assert f"check it with `df {bot}`" in line


@pytest.mark.parametrize("closed", ["2>&-", "<&- 2>&-", "<&- >&- 2>&-"])
def test_a_server_whose_standard_streams_are_closed_serves_and_stops(bot: Path, closed: str) -> None:
    port = free_port()
    served = Served("--app", "bot", "--port", str(port), folder=bot)
    served.command = ["sh", "-c", f'exec "$@" {closed}', "sh", *served.command]
    served.launch()
    try:
        assert served.process is not None
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30, trust_env=False) as client:
            until = time.monotonic() + 30
            while served.process.poll() is None and time.monotonic() < until:
                with suppress(httpx.ConnectError):
                    assert chat(client).status_code == 200
                    break
                time.sleep(0.05)
        assert served.stop() == 0
    finally:
        served.close()


def test_with_a_key_nothing_is_said_of_a_public_api_and_the_key_is_not_shown(bot: Path) -> None:
    with Served("--app", "bot", "--verbose", "--api-key", "sesame", "--api-key", "simsalabim", folder=bot) as served:
        with served.client() as client:
            statuses = []
            for key in ("sesame", "simsalabim", "abracadabra"):
                client.headers["authorization"] = f"Bearer {key}"
                statuses.append(chat(client).status_code)
        served.stop()
        log = served.stderr
    assert statuses == [200, 200, 401]
    assert "auth: key" in log
    assert "public" not in log.lower()
    for key in ("sesame", "simsalabim", "abracadabra"):
        assert key not in log


def test_options_are_read_from_the_environment(bot: Path) -> None:
    (bot / "keys").write_text("one\ntwo\n")
    env = {"JIMS_API_KEY_FILE": str(bot / "keys"), "JIMS_LOG_FORMAT": "json", "JIMS_ROOT_PATH": "/bot"}
    env["JIMS_MAX_BODY"] = "9"
    with Served("--app", "bot", folder=bot, env=env) as served:
        with served.client(headers={"authorization": "Bearer two"}) as client:
            assert chat(client).status_code == 413
            assert "/bot/openapi.json" in client.get("/docs").text
        served.stop()
        lines = [json.loads(line) for line in served.stderr.splitlines()]
    [request, _] = [line for line in lines if line["logger"] == "jimsapi.access"]
    assert (request["method"], request["route"], request["status"]) == ("POST", "/api/v1/chat", 413)
    assert (request["provider"], request["level"]) == ("key", "INFO")
    assert request["duration"] >= 0
    assert request["request_id"]


def test_the_store_is_read_from_a_file_by_the_start_and_by_check(bot: Path) -> None:
    (bot / "store").write_text("sqlite:///elsewhere.db\n")
    env = {"JIMS_STORE_FILE": str(bot / "store")}
    with Served(folder=bot, env=env) as served:  # with JIMS_STORE_FILE and the flag --store, the flag counts
        assert "store: memory:" in served.stderr
    quiet = {"JIMS_PORT": "0", "JIMS_METRICS_PORT": "0", "JIMS_HOST": "127.0.0.1"}
    checked = run_command("check", "--app", "bot", cwd=bot, env={**env, **quiet})
    assert f"store: sqlite:///{bot}/elsewhere.db" in checked.stdout
    line = refusal(run_command(*QUIET, cwd=bot, env={"JIMS_STORE_FILE": str(bot / "missing")}))
    assert f"JIMS_STORE_FILE: cannot read {bot / 'missing'}: No such file or directory" in line
    assert refusal(run_command("check", *QUIET, cwd=bot, env={"JIMS_STORE_FILE": str(bot / "missing")})) == line


def test_json_logs_are_one_object_a_line_also_for_a_traceback(bot: Path) -> None:
    (bot / "bot.py").write_text("async def app(ctx):\n    raise LookupError('a\\nb')\n")
    with Served("--app", "bot", "--log-format", "json", folder=bot) as served:
        with served.client() as client:
            answer = chat(client)
        served.stop()
        lines = [json.loads(line) for line in served.stderr.splitlines()]
    [failure] = [line for line in lines if "exception" in line]
    assert "Traceback" in failure["exception"]
    assert failure["request_id"] == answer.headers["x-request-id"]
    [request] = [line for line in lines if line["logger"] == "jimsapi.access"]
    assert request["run_id"] == answer.headers["x-run-id"]
    assert request["thread_id"]
    assert all({"time", "level", "logger", "message"} <= line.keys() for line in lines)


def test_a_near_miss_is_warned_of_once(bot: Path) -> None:
    with Served("--app", "bot", folder=bot, env={"JIMS_API_KEYS": "sesame"}) as served:
        served.stop()
        log = served.stderr
    assert log.count("JIMS_API_KEYS is set but is not an option; did you mean JIMS_API_KEY?") == 1
    assert "sesame" not in log


def test_tls_is_spoken_with_a_certificate_and_a_key(bot: Path) -> None:
    authority = trustme.CA()
    certificate = authority.issue_cert("localhost", "127.0.0.1")
    certificate.cert_chain_pems[0].write_to_path(bot / "cert.pem")
    certificate.private_key_pem.write_to_path(bot / "key.pem")
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    with Served("--app", "bot", "--ssl-certfile", "cert.pem", "--ssl-keyfile", "key.pem", folder=bot) as served:
        url = f"https://localhost:{served.port}"
        with httpx.Client(base_url=url, verify=trusting, trust_env=False) as client:
            assert chat(client).json()["assistant_messages"] == ["You said: hi"]
        assert f"at https://127.0.0.1:{served.port}" in served.stderr


def test_one_file_may_hold_certificate_and_key(bot: Path) -> None:
    certificate = trustme.CA().issue_cert("localhost")
    certificate.private_key_and_cert_chain_pem.write_to_path(bot / "both.pem")
    checked: Any
    with (
        Served("--app", "bot", "--ssl-certfile", "both.pem", folder=bot) as served,
        httpx.Client(verify=False, trust_env=False) as client,
    ):
        checked = client.get(f"https://127.0.0.1:{served.port}/healthz")
    assert checked.json() == {"status": "ok"}


def test_the_root_path_is_where_a_proxy_shows_the_api(bot: Path) -> None:
    with Served("--app", "bot", "--root-path", "/bot/", folder=bot) as served, served.client() as client:
        shown = f"at http://127.0.0.1:{served.port}, which a proxy shows below /bot, documentation at (.*), no metrics"
        found = re.search(shown, served.stderr)
        assert found is not None
        assert client.get(found[1]).status_code == 200
        assert client.get("/healthz").status_code == 200  # the proxy has taken the prefix off
        assert chat(client).status_code == 200
        assert "/bot/openapi.json" in client.get("/docs").text


@pytest.mark.parametrize(("trusted", "scheme"), [(None, "http"), ("127.0.0.1", "https"), ("10.0.0.1", "http")])
def test_forwarded_headers_are_believed_of_the_named_proxies_only(bot: Path, trusted: str | None, scheme: str) -> None:
    from tests.plugins.distributions import install

    install(
        bot,
        "acme-scheme",
        """
        from jimsapi import *

        @hookimpl
        def jimsapi_routes(router):
            @router.get("/scheme", public=True)
            async def scheme(request):
                return JSONResponse([request.scope["scheme"], request.scope["client"][0]])
        """,
    )
    given = [] if trusted is None else ["--forwarded-allow-ips", trusted]
    env = {"FORWARDED_ALLOW_IPS": "*"}  # of uvicorn, and not obeyed
    with Served("--app", "bot", *given, folder=bot, env=env) as served, served.client() as client:
        seen = client.get("/scheme", headers={"x-forwarded-proto": "https", "x-forwarded-for": "198.51.100.7"}).json()
    assert seen == [scheme, "198.51.100.7" if scheme == "https" else "127.0.0.1"]


def test_metrics_are_shown_on_a_port_of_their_own_and_not_on_the_api_s(bot: Path) -> None:
    port = free_port()
    given = ["--metrics-host", "127.0.0.1", "--metrics-port", str(port)]
    with Served("--app", "bot", *given, folder=bot) as served, served.client() as client:
        assert chat(client).status_code == 200
        shown = client.get(f"http://127.0.0.1:{port}/metrics")
        assert client.get("/metrics").status_code == 404
    assert 'jims_pipeline_runs_total{pipeline="app",status="success"} 1.0' in shown.text.replace(
        'status="success",pipeline="app"', 'pipeline="app",status="success"'
    )
    assert "jims_pipeline_run_duration_seconds_bucket" in shown.text
    assert "process_resident_memory_bytes" in shown.text
    assert shown.headers["content-type"].startswith("text/plain")


def test_metrics_port_0_opens_none(bot: Path) -> None:
    with Served("--app", "bot", "--metrics-port", "0", folder=bot) as served:
        assert "no metrics port" in served.stderr
        assert listening_ports(served.pid) == {served.port}


def listening_ports(pid: int) -> set[int]:
    """The TCP ports on which a process listens, as Linux tells."""
    sockets = {os.readlink(link) for link in Path(f"/proc/{pid}/fd").iterdir() if link.exists() or link.is_symlink()}
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in sockets:
                found.add(int(fields[1].rpartition(":")[2], 16))
    return found


def test_the_openapi_document_is_printed_alone_and_is_valid(bot: Path) -> None:
    printed = run_command("openapi", "--app", "bot", cwd=bot)
    assert printed.returncode == 0, printed.stderr
    document = json.loads(printed.stdout)
    validate(document)
    assert document["openapi"].startswith("3.1")
    assert "/api/v1/chat" in document["paths"]
    assert not (bot / "jims.db").exists()


def test_check_says_what_would_serve_and_leaves_no_trace(bot: Path) -> None:
    checked = run_command("check", "--app", "bot", cwd=bot)
    assert checked.returncode == 0, checked.stderr
    for said in ("serves bot (app)", "jims.db", "metrics on 0.0.0.0:8000", "key (jimsapi ", "jimsapi_auth_provider"):
        assert said in checked.stdout
    assert "EVERYBODY" in checked.stdout + checked.stderr
    assert "NO AUTHENTICATION" in checked.stderr
    assert {path.name for path in bot.iterdir()} <= {"bot.py", "__pycache__"}


def test_version_is_that_of_the_distribution(bot: Path) -> None:
    from importlib.metadata import version

    assert run_command("--version", cwd=bot).stdout == f"jimsapi {version('jimsapi')}\n"


def test_the_console_script_is_the_module(bot: Path) -> None:
    script = Path(sys.executable).with_name("jimsapi")
    assert script.is_file()
    env = {**os.environ, "PYTHONPATH": python_path(bot)}
    by_script = subprocess.run([script, "plugins"], cwd=bot, env=env, capture_output=True, text=True, check=True)
    assert by_script.stdout == run_command("plugins", cwd=bot).stdout
    assert ROOT.is_dir()


@pytest.mark.parametrize(("called", "printed"), [("jimsapi.cli.main(['--version'])", "True False"), ("", "True True")])
def test_only_a_running_command_keeps_what_its_imports_made_from_the_garbage_collector(
    called: str, printed: str
) -> None:
    program = f"""
import atexit, gc, jimsapi.cli
atexit.register(lambda: print(gc.isenabled(), any(isinstance(one, type) for one in gc.get_objects())))
{called}
"""
    ran = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ran.stdout.splitlines()[-1] == printed
