"""The systemd units are valid, hardened, and fit the options of the server."""

import re
import shlex
import shutil
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path

import pytest

from tests.deploy.tools import run_tool
from tests.deploy.units import SYSTEMD, Instance, settings

EXPOSURE = 15
"""The most that `systemd-analyze security` may find, of 100."""


@pytest.fixture
def units(tmp_path: Path) -> Path:
    """A folder with an instance of both units, whose command is one that exists here."""
    service = (SYSTEMD / "jimsapi@.service").read_text(encoding="utf-8")
    (tmp_path / "jimsapi@.service").write_text(service.replace("/opt/jimsapi/current/bin/jimsapi", "/usr/bin/true"))
    shutil.copy(SYSTEMD / "jimsapi@.socket", tmp_path)
    return tmp_path


@pytest.mark.parametrize("unit", ["jimsapi@8080.service", "jimsapi@8080.socket"])
def test_systemd_reads_the_unit_without_a_complaint(units: Path, unit: str) -> None:
    assert run_tool("systemd-analyze", "verify", "--man=no", units / unit) == ""


def test_the_service_is_hardened(units: Path) -> None:
    run_tool("systemd-analyze", "security", "--offline=true", f"--threshold={EXPOSURE}", units / "jimsapi@.service")


def test_the_manager_waits_longer_than_the_server_drains() -> None:
    service = settings("jimsapi@.service")
    options = dict(line.split("=", 1) for line in service["Environment"])
    [stop] = service["TimeoutStopSec"]
    assert float(stop) > float(options["JIMS_DRAIN_DELAY"]) + float(options["JIMS_DRAIN_TIME"])


def test_an_instance_has_the_mark_for_nginx_from_its_stop_to_its_start(tmp_path: Path) -> None:
    with Instance(tmp_path, {"JIMS_DRAIN_DELAY": "0"}) as instance:
        mark = tmp_path / f"{instance.port}.leaving"
        assert not mark.exists()
        assert instance.stop() == 0
        assert mark.exists()
        instance.start()
        assert not mark.exists()


def test_the_server_knows_each_option_that_the_unit_sets() -> None:
    names = [line.partition("=")[0] for line in settings("jimsapi@.service")["Environment"]]
    reference = (SYSTEMD.parents[1] / "docs" / "reference.md").read_text(encoding="utf-8")
    known = set(re.findall(r"`(JIMS_\w+)`", reference)) | {"PYTHONDONTWRITEBYTECODE"}
    assert {name.removesuffix("_FILE") if name not in known else name for name in names} <= known


@pytest.mark.parametrize("unit", ["jimsapi-backup.service", "jimsapi-backup.timer"])
def test_systemd_reads_the_units_of_the_backup_without_a_complaint(tmp_path: Path, unit: str) -> None:
    for each in SYSTEMD.glob("jimsapi-backup.*"):
        shutil.copy(each, tmp_path)
    assert run_tool("systemd-analyze", "verify", "--man=no", tmp_path / unit) == ""


def back_up(data: Path, backups: Path) -> int:
    """Run the command of the backup's unit with other folders. Returns its exit status."""
    unit = (SYSTEMD / "jimsapi-backup.service").read_text(encoding="utf-8")
    [line] = re.findall(r"^ExecStart=((?:.*\\\n)*.*)$", unit, re.MULTILINE)
    line = line.replace("\\\n", " ").replace("%%", "%")
    line = line.replace("/var/backups/jimsapi", str(backups)).replace("/var/lib/jimsapi", str(data))
    return subprocess.run(shlex.split(line), check=False, capture_output=True).returncode


def rows_of(database: Path) -> list[tuple[str]]:
    with closing(sqlite3.connect(database)) as connection:
        return connection.execute("SELECT word FROM words").fetchall()


def test_a_backup_is_whole_and_a_failed_one_leaves_that_of_last_week(tmp_path: Path) -> None:
    database = tmp_path / "jims.db"
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE words AS SELECT 'hello' AS word")
        connection.commit()
        backups = tmp_path / "backups"
        backups.mkdir()
        assert back_up(tmp_path, backups) == 0  # while a server has the database open
    [copy] = backups.iterdir()
    assert rows_of(copy) == [("hello",)]
    for damage in (lambda: database.write_bytes(b"damaged" * 1000), lambda: database.write_bytes(b""), database.unlink):
        damage()
        assert back_up(tmp_path, backups) != 0
        assert rows_of(copy) == [("hello",)]
    assert not database.exists()
