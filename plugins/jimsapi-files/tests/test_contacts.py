"""`jimsapi contacts` with a file store: the archive has the contents, and a deletion reaches them."""

import shutil
import subprocess
from pathlib import Path
from zipfile import ZipFile

import orjson
import pytest
from filing import kept

from tests.command import run_command
from tests.plugins.uploads import upload
from tests.serving import Served

NAMES = ["plain.txt", "../../etc/passwd", "dots..", "größe 🎈.PDF", "no ending", "a" * 200 + ".txt"]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, bytes]]:
    """A database and files in which `ann` and `bob` have a thread, and the contents of ann's files by identifier."""
    site = tmp_path_factory.mktemp("site")
    options = ("--store", f"sqlite:///{site / 'jims.db'}", "--files-store", f"file://{site}/files")
    found: dict[str, bytes] = {}
    with Served(*options, folder=site) as served, served.client() as client:
        for number, name in enumerate(NAMES):
            content = f"content {number}".encode() * 100_000
            found[upload(client, content, name).json()["file_id"]] = content
        bobs = upload(client, b"of bob", "b", "bob").json()["file_id"]
        for contact, files in (("ann", list(found)), ("bob", [bobs])):
            body = {"contact_id": contact, "message": "look", "files": files}
            client.post("/api/v1/chat", json=body).raise_for_status()
    return site, found


@pytest.fixture
def served_before(site: tuple[Path, dict[str, bytes]], tmp_path: Path) -> dict[str, bytes]:
    """A copy of the site in the test's own folder. Returns the contents of ann's files by their identifiers."""
    shutil.copytree(site[0], tmp_path, dirs_exist_ok=True)
    return site[1]


def contacts(tmp_path: Path, folder: Path | None, *arguments: str) -> subprocess.CompletedProcess[str]:
    files = () if folder is None else ("--files-store", f"file://{folder}")
    return run_command("contacts", *arguments, "--store", f"sqlite:///{tmp_path / 'jims.db'}", *files, cwd=tmp_path)


def test_the_archive_has_the_files_with_their_names_and_contents(
    served_before: dict[str, bytes], tmp_path: Path, folder: Path
) -> None:
    ran = contacts(tmp_path, folder, "export", "ann", "--output", "ann.zip")
    assert (ran.returncode, ran.stderr) == (0, "")
    with ZipFile(tmp_path / "ann.zip") as archive:
        files = [orjson.loads(line) for line in archive.read("files.jsonl").splitlines()]
        assert {file["file_id"]: archive.read(file["path"]) for file in files} == served_before
        manifest = orjson.loads(archive.read("manifest.json"))
        assert manifest["counts"]["files"] == len(served_before)
        assert manifest["counts"]["file_bytes"] == sum(map(len, served_before.values()))
        assert manifest["without_files"] is False
        for name in archive.namelist():  # no client's name leads a program that unpacks out of its folder
            assert ".." not in name
            assert not name.startswith("/")
    assert {file["type"] for file in files} == {"text/plain"}
    assert {"plain.txt", "größe 🎈.PDF", "no ending"} <= {file["name"] for file in files}


def test_a_deletion_reaches_the_files_of_the_contact_only(
    served_before: dict[str, bytes], tmp_path: Path, folder: Path
) -> None:
    ran = contacts(tmp_path, folder, "delete", "ann", "--yes")
    size = sum(map(len, served_before.values()))
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout.startswith(f"deleted 1 thread and {len(served_before)} files ({size} bytes) of the contact 'ann'")
    [content] = kept(folder)
    assert content.read_bytes() == b"of bob"
    assert contacts(tmp_path, folder, "delete", "ann", "--yes").stdout.startswith("there is nothing of the contact")


def test_with_a_folder_that_the_server_has_never_used_nothing_is_done(
    served_before: dict[str, bytes], tmp_path: Path, folder: Path
) -> None:
    mistyped, other = tmp_path / "flies", tmp_path / "other"
    other.mkdir()
    (other / "notes.txt").write_text("not a file store")
    for wrong in (mistyped, other):
        for command in (("export", "ann", "--output", "a.zip"), ("delete", "ann", "--yes", "--without-files")):
            ran = contacts(tmp_path, wrong, *command)
            assert ran.returncode == 1
            assert f"no server has used the folder of --files-store, file://{wrong}; give" in ran.stderr
    assert not mistyped.exists()
    assert [path.name for path in other.iterdir()] == ["notes.txt"]
    assert not (tmp_path / "a.zip").exists()
    assert len(kept(folder)) == len(served_before) + 1


def test_a_contact_with_files_and_no_threads_is_exported_and_deleted(
    served_before: dict[str, bytes], tmp_path: Path, folder: Path
) -> None:
    assert contacts(tmp_path, None, "delete", "ann", "--yes", "--without-files").returncode == 0
    ran = contacts(tmp_path, folder, "export", "ann", "--output", "ann.zip")
    assert ran.stdout.startswith(f"ann.zip: 0 threads, 0 events, 0 ratings, {len(served_before)} files (")
    assert contacts(tmp_path, folder, "delete", "ann", "--yes").stdout.startswith("deleted 0 threads and")
    assert len(kept(folder)) == 1
