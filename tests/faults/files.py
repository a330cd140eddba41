"""Files that callers store under faults, if `jimsapi-files` is there: what they hold, and what became of them."""

import asyncio
from collections import Counter
from importlib.util import find_spec
from pathlib import Path

from tests.faults.journal import Journal
from tests.faults.report import Figures
from tests.faults.wire import Answer, Wire, request

FILES = "/api/v1/files"
LENGTHS = (1, 300, 20_000)
"""How often a file has its message. The longest files are written in several pieces."""
DELETED = 4
"""One of so many files is deleted."""
MESSAGES_OF_CONTACT = 500
"""How many messages have the same contact for their files; not all of them have a file."""
ASKING_AT_ONCE = 16


def has_files() -> bool:
    """Whether a server of this environment can store files."""
    return find_spec("jimsapi_files") is not None


def files_options(folder: Path) -> tuple[str, ...]:
    """The options of a server that stores files below a folder; none if it cannot."""
    return ("--files-store", f"file://{folder}/files") if has_files() else ()


def is_deleted(message: str) -> bool:
    """Whether its caller deletes the file of a message."""
    return _number(message) % DELETED == 0


def contact_of(message: str) -> str:
    """The contact that the file of a message belongs to."""
    return f"files-{_number(message) // MESSAGES_OF_CONTACT}"


def content_of(message: str) -> bytes:
    """The content of the file of a message."""
    return f"{message}\n".encode() * LENGTHS[_number(message) % len(LENGTHS)]


async def store_file(wire: Wire, message: str) -> Answer:
    """Store the file of a message, or store it again. Raises `NoAnswer`, `CutAnswer`."""
    path = f"{FILES}?contact_id={contact_of(message)}&name={_number(message)}.txt"
    await wire.send(request("POST", path, content_of(message), "content-type: text/plain"))
    return await wire.answer()


async def delete_file(wire: Wire, file_id: str) -> Answer:
    """Delete a file. Raises `NoAnswer`, `CutAnswer`."""
    await wire.send(request("DELETE", f"{FILES}/{file_id}"))
    return await wire.answer()


async def stored_files(journal: Journal, port: int) -> Figures:
    """What a server holds of the files that callers have stored and deleted."""
    wanted = [(file_id, message) for message, file_id in journal.files.items()]
    deleted = [(file_id, "") for file_id in journal.deleted]
    contacts = {contact_of(message) for message in (*journal.files, *journal.unfiled)}
    names = [name for contact in contacts for name in await _names(port, contact)]
    return {
        "files": len(wanted),
        "files deleted": len(deleted),
        "files lost": await _differing(port, wanted),
        "files not deleted": await _differing(port, deleted),
        "doubled files": sum(times > 1 for times in Counter(names).values()),
    }


async def _differing(port: int, files: list[tuple[str, str]]) -> int:
    """How many of these files do not have the content of their message, or are there although it is empty."""
    differing = 0

    async def look() -> None:
        nonlocal differing
        wire = Wire(port)
        while files:
            file_id, message = files.pop()
            answer = await wire.get(f"{FILES}/{file_id}")
            expected = (200, content_of(message)) if message else (404, answer.body)
            differing += (answer.status, answer.body) != expected
        wire.close()

    await asyncio.gather(*(look() for _ in range(ASKING_AT_ONCE)))
    return differing


async def _names(port: int, contact: str) -> list[str]:
    wire = Wire(port)
    listed = (await wire.get(f"{FILES}?contact_id={contact}&limit={2 * MESSAGES_OF_CONTACT}")).json()
    wire.close()
    return [file["name"] for file in listed["files"]]


def _number(message: str) -> int:
    return int(message.partition(" ")[0])
