"""The systemd units are valid, hardened, and fit the options of the server."""

import re
import shutil
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
