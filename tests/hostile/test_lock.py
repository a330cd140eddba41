"""The lock files hold what setup.cfg asks for, and the audit of them never takes silence for a good answer."""

import json
import re

import pytest
from packaging.utils import canonicalize_name

from tests.hostile import lock
from tests.hostile.audit import NONE, SOME, UNKNOWN, verdict


@pytest.mark.parametrize("name", ["core", "test"])
def test_a_lock_satisfies_what_setup_cfg_asks_for(name: str) -> None:
    locked = lock.read(name)
    for requirement in lock.requirements(name):
        if requirement.marker is None or requirement.marker.evaluate():
            version, _ = locked[canonicalize_name(requirement.name)]
            assert requirement.specifier.contains(version), requirement


@pytest.mark.parametrize("name", ["core", "test"])
def test_a_lock_names_versions_and_hashes_and_no_place(name: str) -> None:
    for version, hashes in lock.read(name).values():
        assert re.fullmatch(r"[0-9][0-9a-z.+!]*", version)
        assert all(re.fullmatch(r"sha256:[0-9a-f]{64}", one) for one in hashes)
    text = (lock.FOLDER / f"{name}.lock").read_text(encoding="utf-8")
    assert "://" not in text
    assert "index" not in text


def test_what_the_core_needs_is_locked_the_same_for_the_tests() -> None:
    core, test = lock.read("core"), lock.read("test")
    assert {name: test[name] for name in core} == core


def test_the_audit_tells_known_vulnerabilities_and_their_mending() -> None:
    faulty = {"name": "a", "version": "1", "vulns": [{"id": "PYSEC-1", "fix_versions": ["2"]}]}
    sound = {"name": "b", "version": "1", "vulns": []}
    assert verdict("core", json.dumps({"dependencies": [sound]}), "") == (
        NONE,
        "core.lock: 1 packages, 0 known vulnerabilities",
    )
    status, text = verdict("core", json.dumps({"dependencies": [sound, faulty]}), "")
    assert status == SOME
    assert text.splitlines()[1] == "a 1: PYSEC-1, mended in 2"


@pytest.mark.parametrize(
    ("found", "complaints", "told"),
    [
        ("", "Traceback\nConnectionError: no route", "ConnectionError: no route"),
        ("", "", "pip-audit said nothing"),
        ("{}", "odd", "odd"),
        ('{"dependencies":[{"name":"a","skip_reason":"not found"}]}', "", "a: not found"),
    ],
)
def test_an_audit_that_found_out_nothing_fails_and_says_so(found: str, complaints: str, told: str) -> None:
    status, text = verdict("core", found, complaints)
    assert status == UNKNOWN
    assert "not audited" in text.lower()
    assert told in text
