"""What SECURITY.md promises is held by the tests that it names."""

from pathlib import Path

from jimsapi.builtin.keys_file import KeysFile
from tests.hostile import pointers
from tests.serving import ROOT, Served

CHAT = "/api/v1/chat"


def test_every_test_that_the_page_names_is_there() -> None:
    names = pointers.NAME.findall((ROOT / "SECURITY.md").read_text(encoding="utf-8"))
    assert len(names) > 20
    assert pointers.missing(names) == []


def test_a_name_that_is_not_there_is_missed() -> None:
    assert pointers.missing([("tests/no.py", "test_x"), ("tests/api/test_key.py", "test_x")]) == [
        "tests/no.py::test_x",
        "tests/api/test_key.py::test_x",
    ]


def test_an_unbound_caller_with_chat_alone_continues_any_thread_by_its_id(tmp_path: Path) -> None:
    file = KeysFile(tmp_path / "keys.json")
    talker, _ = file.add("talker", scopes=("chat",))
    bound, _ = file.add("bound", contact_id="ann")
    with Served("--keys-file", str(tmp_path / "keys.json")) as served, served.client() as client:
        own = {"authorization": f"Bearer {bound}"}
        thread = client.post(CHAT, json={"message": "mine"}, headers=own).json()["thread_id"]
        body = {"contact_id": "somebody else", "message": "see", "thread_id": thread}
        other = client.post(CHAT, json=body, headers={"authorization": f"Bearer {talker}"})
        assert other.status_code == 200
        assert other.json()["thread_id"] == thread
