"""A plugin of somebody else, installed by pip beside us: found, listed, used, and not imported without need."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.command import python_path, run_command
from tests.plugins.distributions import pip_install, wheel
from tests.serving import Served

TICKET = """
import os
from datetime import timedelta
from pathlib import Path

from jimsapi import Identity, InvalidCredentials, Latest, New, Options, Secret, hookimpl, option

Path(os.environ["IMPORTED"]).write_text("imported") if "IMPORTED" in os.environ else None


class TicketOptions(Options, prefix="ticket"):
    secret: Secret | None = option(help="Shared ticket.")


class Ticket:
    name, challenge = "ticket", "Ticket"

    def __init__(self, secret):
        self.secret = secret

    async def authenticate(self, connection):
        ticket = connection.headers.get("x-ticket")
        if ticket is None:
            return None
        if not self.secret.matches(ticket):
            raise InvalidCredentials
        return Identity(subject="holder")


@hookimpl
def jimsapi_options():
    return TicketOptions


@hookimpl
def jimsapi_auth_provider(settings):
    secret = settings.get(TicketOptions).secret
    return Ticket(secret) if secret else None


class RecentThread:
    name = "recent"

    async def resolve(self, inbound):
        if inbound.thread_id:
            return None
        return [Latest(active_within=timedelta(minutes=30)), New()]


@hookimpl
def jimsapi_thread_resolver():
    return RecentThread()
"""

BOT = "async def app(ctx):\n    ctx.send_message(f'You said: {ctx.get_last_user_message()}')\n"
TICKET_LINE = "1. ticket  Acme-Ticket 3.2  acme_ticket"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pip")
    built = wheel(folder, "Acme-Ticket", "3.2", {"acme_ticket.py": TICKET}, "ticket = acme_ticket")
    pip_install(folder / "site", built)
    return folder / "site"


@pytest.fixture(scope="module")
def served(installed: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("served")
    (folder / "bot.py").write_text(BOT)
    env = {"PYTHONPATH": python_path(installed)}
    with Served("--app", "bot", "--ticket-secret", "Sesame öffne dich", folder=folder, env=env) as running:
        yield running


def chat(served: Served, headers: dict[str, bytes]) -> tuple[int, str | None, str]:
    with served.client() as client:
        body = {"contact_id": "ann", "message": "hi"}
        sent = [(name.encode(), value) for name, value in headers.items()]
        answer = client.post("/api/v1/chat", json=body, headers=sent)
    return answer.status_code, answer.headers.get("www-authenticate"), answer.text


def test_it_is_listed_with_its_distribution_and_without_being_imported(installed: Path, tmp_path: Path) -> None:
    proof = tmp_path / "imported"
    listed = run_command("plugins", cwd=tmp_path, path=installed, env={"IMPORTED": str(proof)})
    assert (listed.returncode, listed.stderr) == (0, "")
    assert TICKET_LINE in listed.stdout.splitlines()
    assert "jimsapi check" in listed.stdout
    assert not proof.exists()


@pytest.mark.parametrize("argument", ["plugins", "--version"])
def test_what_diagnoses_imports_no_plugin(installed: Path, tmp_path: Path, argument: str) -> None:
    proof = tmp_path / "imported"
    assert run_command(argument, cwd=tmp_path, path=installed, env={"IMPORTED": str(proof)}).returncode == 0
    assert not proof.exists()


def test_check_imports_it_lists_its_hooks_and_says_who_may_enter(installed: Path, tmp_path: Path) -> None:
    (tmp_path / "bot.py").write_text(BOT)
    proof = tmp_path / "imported"
    checked = run_command(
        *("check", "--app", "bot", "--ticket-secret", "sesame", "--api-key", "k"),
        cwd=tmp_path,
        path=installed,
        env={"IMPORTED": str(proof)},
    )
    assert checked.returncode == 0, checked.stderr
    assert proof.exists()
    lines = [line.strip() for line in checked.stdout.splitlines()]
    assert "ticket (Acme-Ticket 3.2): jimsapi_options, jimsapi_auth_provider, jimsapi_thread_resolver" in lines
    assert "who may enter: callers that one of these admits, tried in this order: key, ticket" in lines
    assert "sesame" not in checked.stdout + checked.stderr
    assert not (tmp_path / "jims.db").exists()
    assert not (tmp_path / "jims.db.lock").exists()


def test_its_options_are_in_the_help(installed: Path, tmp_path: Path) -> None:
    shown = run_command("--help", cwd=tmp_path, path=installed).stdout
    assert "--ticket-secret" in shown
    assert "JIMS_TICKET_SECRET" in shown


@pytest.mark.parametrize(
    ("headers", "status", "challenge"),
    [
        ({"x-ticket": "Sesame öffne dich".encode()}, 200, None),
        ({"x-ticket": "Sesame öffne dich".encode("latin-1")}, 200, None),
        ({"x-ticket": b"Sesame"}, 401, "Ticket"),
        ({"x-ticket": b""}, 401, "Ticket"),
        ({"authorization": b"Bearer Sesame"}, 401, "Ticket"),
        ({}, 401, "Ticket"),
    ],
)
def test_it_lets_in_who_holds_the_ticket_and_nobody_else(
    served: Served, headers: dict[str, bytes], status: int, challenge: str | None
) -> None:
    assert chat(served, headers)[:2] == (status, challenge)


def test_the_start_and_the_request_lines_name_it_and_never_its_secret(served: Served) -> None:
    assert chat(served, {"x-ticket": "Sesame öffne dich".encode()})[0] == 200
    assert chat(served, {"x-ticket": b"Simsalabim"})[0] == 401
    served.stop()
    log = served.stderr
    assert "plugins: ticket (Acme-Ticket 3.2)" in log
    assert "auth: ticket" in log
    assert "provider=ticket" in log
    assert "NO AUTHENTICATION" not in log
    assert "Sesame" not in log
    assert "Simsalabim" not in log
