"""The files of a folder on disk. Everything here blocks; `FolderStore` calls it in threads.

    key                                     a secret from which the identifiers are made
    files/<xx>/<contact>/<file>/content     the content of a file
    files/<xx>/<contact>/<file>/about       its `StoredFile` as JSON
    incoming/<contact>-<random>/            a file that is being received, with the same two entries
    removed/<random>                        a folder that was deleted, and whose content is being removed

`<contact>` and `<file>` are digests, and together the `file_id`; `<xx>` is the beginning of the first. So no path
contains a text of a client. A file is complete when its folder is renamed from `incoming` into `files`, and deleted
when it is renamed into `removed`. Each is one step, so a crash leaves no half of a file there.

Several processes may use the folder. Whoever changes the files of a contact locks the folder `<xx>` meanwhile, which is
never removed. Whoever receives a file locks its content until the end, so that others can tell it from one that a crash
has left.
"""

import fcntl
import hmac
import os
import re
import secrets
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO

import msgspec

from jimsapi.threads import (
    ContactDeleted,
    FilePage,
    FileQuotaExceeded,
    InvalidCursor,
    NewFile,
    StoredFile,
    StoredFileNotFound,
    StoreUnusable,
)

LEAST = 65_536
"""Bytes that each file counts at least. Otherwise a contact could store any number of empty files."""

_KEY_LENGTH = 32
_ID = re.compile(r"[0-9a-f]{64}")
_INCOMING = re.compile(r"[0-9a-f]{32}-[0-9a-f]{32}")
_HALF = 32
"""Characters of a `file_id` that are the digest of the contact."""

_READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW


class Disk:
    """The files of one folder. Raises `OSError` for what the disk refuses."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._files = path / "files"
        self._removed = path / "removed"
        self._key = b""
        self.incoming = path / "incoming"

    def is_unused(self) -> bool:
        """Return whether no server has used the folder. If it cannot be read, `open` raises the reason."""
        try:
            return not {"key", "files"} & set(_names(self._path))
        except OSError:
            return False

    def open(self) -> None:
        """Create the folder if it is missing, and remove what crashed processes have left.

        Raises `StoreUnusable` if the key of its files is missing or damaged.
        """
        for folder in (self._path, self._files, self.incoming, self._removed):
            _make_folder(folder)
        self._key = self._read_key()
        self._make_shards()
        self._remove_leftovers()

    def contact(self, contact_id: str) -> str:
        """Return the digest of a contact, which is the first half of its files' identifiers."""
        return self._digest("contact", contact_id)

    def find(self, file_id: str, acting_for: str | None) -> StoredFile:
        """Return a file. Raises `StoredFileNotFound` as `FileStore.find` does."""
        if not _ID.fullmatch(file_id):
            raise StoredFileNotFound
        if acting_for is not None and file_id[:_HALF] != self.contact(acting_for):
            raise StoredFileNotFound
        file = _read_about(self._folder(file_id))
        if file is None or (acting_for is not None and file.contact_id != acting_for):
            raise StoredFileNotFound
        return file

    def content(self, file_id: str, begin: int) -> BinaryIO:
        """Open the content of a file at the position `begin`. Raises `StoredFileNotFound` if it was deleted."""
        try:
            file = os.fdopen(os.open(self._folder(file_id) / "content", _READ), "rb")
        except FileNotFoundError:
            raise StoredFileNotFound from None
        file.seek(begin)
        return file

    def page(self, contact_id: str, limit: int, after: str | None) -> FilePage:
        """Return a page of a contact's files, ordered by their identifiers. Raises `InvalidCursor`."""
        contact = self.contact(contact_id)
        if after is not None and not (_ID.fullmatch(after) and after.startswith(contact)):
            raise InvalidCursor
        folder = self._shard(contact) / contact
        names = sorted(name for name in _names(folder) if after is None or contact + name > after)
        found = [file for name in names[:limit] if (file := _read_about(folder / name)) is not None]
        return FilePage(found, contact + names[limit - 1] if len(names) > limit else None)

    def delete(self, file_id: str) -> None:
        """Delete a file. Raises `StoredFileNotFound` if it was deleted before."""
        folder = self._folder(file_id)
        removed = self._removed / _random()
        with self.locked(file_id[:_HALF]):
            try:
                _move(folder, removed)
            except FileNotFoundError:
                raise StoredFileNotFound from None
        _remove(removed)

    def delete_contact(self, contact_id: str) -> None:
        """Delete all files of a contact, also those that are being received."""
        contact = self.contact(contact_id)
        shard = self._shard(contact)
        removed = []
        with self.locked(contact):
            for folder in (shard / contact, *self.received_for(contact)):
                target = self._removed / _random()
                with suppress(FileNotFoundError):  # there are no files, or the upload has ended meanwhile
                    _move(folder, target)
                    removed.append(target)
        for target in removed:
            _remove(target)

    def used(self, contact: str) -> int:
        """Return how many bytes the files of a contact count, with those that are being received. Call it locked."""
        stored = self._shard(contact) / contact
        folders = [*(f"{stored}/{name}" for name in _names(stored)), *self.received_for(contact)]
        return sum(max(_size_of(f"{folder}/content"), LEAST) for folder in folders)

    def received_for(self, contact: str) -> list[Path]:
        """Return the folders of the files that are being received for a contact."""
        return [self.incoming / name for name in _names(self.incoming) if name.startswith(f"{contact}-")]

    def adopt(self, folder: Path, file: StoredFile) -> StoredFile:
        """Move a received file to its place. Returns the file that is there already, if there is one.

        Raises `FileNotFoundError` if `folder` is gone.
        """
        target = self._folder(file.file_id)
        with self.locked(file.file_id[:_HALF]):
            existing = _read_about(target)
            if existing is not None:
                return existing
            _make_folder(target.parent)
            _move(folder, target)
        return file

    def describe(self, new: NewFile, size: int, digest: bytes) -> StoredFile:
        """Return the description of a received file. `digest` is that of its content."""
        file = self._digest("file", new.contact_id, new.name, new.type, digest.hex())
        return StoredFile(
            file_id=self.contact(new.contact_id) + file,
            contact_id=new.contact_id,
            name=new.name,
            type=new.type,
            size=size,
            created_at=datetime.now(UTC),
        )

    @contextmanager
    def locked(self, contact: str) -> Iterator[None]:
        """Return a context in which no other thread and no other process changes the files of a contact."""
        descriptor = os.open(self._shard(contact), _READ | os.O_DIRECTORY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _shard(self, contact: str) -> Path:
        return self._files / contact[:2]

    def _folder(self, file_id: str) -> Path:
        contact, name = file_id[:_HALF], file_id[_HALF:]
        return self._shard(contact) / contact / name

    def _digest(self, *parts: str) -> str:
        """Return 128 bits that only the holder of the key can compute."""
        return hmac.new(self._key, msgspec.json.encode(parts), sha256).hexdigest()[:_HALF]

    def _read_key(self) -> bytes:
        """Return the key. Creates it if the folder has no files yet."""
        path = self._path / "key"
        has_files = any(_names(self._files))  # before the next line, since another process may create both now
        if not path.exists():
            if has_files:
                raise StoreUnusable(f"{path} is missing, so the files beside it cannot be found; restore it")
            draft = self.incoming / f"key-{_random()}"
            _write_new(draft, secrets.token_bytes(_KEY_LENGTH))
            with suppress(FileExistsError):  # another process was faster
                os.link(draft, path)
            os.unlink(draft)
            _sync_folder(self._path)
        key = path.read_bytes()
        if len(key) != _KEY_LENGTH:
            raise StoreUnusable(f"{path} is damaged, so the files beside it cannot be found; restore it")
        return key

    def _make_shards(self) -> None:
        for number in range(256):
            with suppress(FileExistsError):
                os.mkdir(self._files / f"{number:02x}", 0o700)
        _sync_folder(self._files)

    def _remove_leftovers(self) -> None:
        for name in _names(self.incoming):
            if _INCOMING.fullmatch(name):
                with self.locked(name[:_HALF]):
                    if _is_left(self.incoming / name):
                        shutil.rmtree(self.incoming / name, ignore_errors=True)
        for name in _names(self._removed):
            shutil.rmtree(self._removed / name, ignore_errors=True)


class Incoming:
    """A file that is being received. Call `begin`, `write` for each piece, and `keep`; and `discard` in any case.

    A thread goes on with a call if the task that waits for it is cancelled. So the calls wait for each other, and do
    nothing after `discard`.
    """

    def __init__(self, disk: Disk, new: NewFile, quota: int) -> None:
        self._disk = disk
        self._new = new
        self._quota = quota
        self._contact = disk.contact(new.contact_id)
        self._folder = disk.incoming / f"{self._contact}-{_random()}"
        self._lock = threading.Lock()
        self._descriptor: int | None = None
        self._ended = False
        self._reserved = 0
        self._size = 0
        self._digest = sha256()

    def begin(self) -> None:
        """Reserve room for the file. Raises `FileQuotaExceeded` if it does not fit.

        The content gets its final length at once, as a hole that needs no room on the disk. So every process counts it.
        """
        new = self._new
        with self._lock, self._disk.locked(self._contact):
            if self._ended:
                return
            room = self._quota - self._disk.used(self._contact)
            self._reserved = min(new.limit, max(room, 0)) if new.size is None else new.size
            if max(self._reserved, LEAST) > room:
                raise FileQuotaExceeded(self._quota)
            os.mkdir(self._folder, 0o700)
            self._descriptor = os.open(self._folder / "content", _CREATE, 0o600)
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(self._descriptor, self._reserved)

    def write(self, piece: bytes) -> None:
        """Append a piece. Raises `FileQuotaExceeded` if the content gets longer than what could be reserved."""
        with self._lock:
            if self._descriptor is None:
                return
            self._size += len(piece)
            if self._size > self._reserved:
                raise FileQuotaExceeded(self._quota)
            self._digest.update(piece)
            _write_all(self._descriptor, piece)

    def keep(self) -> StoredFile:
        """Complete the file, and return it. Raises `ContactDeleted` if its contact was deleted meanwhile."""
        with self._lock:
            if self._descriptor is None:
                raise ContactDeleted  # nobody waits for this call any more
            os.ftruncate(self._descriptor, self._size)
            os.fsync(self._descriptor)
            file = self._disk.describe(self._new, self._size, self._digest.digest())
            try:
                _write_new(self._folder / "about", msgspec.json.encode(file))
                _sync_folder(self._folder)
                return self._disk.adopt(self._folder, file)
            except FileNotFoundError:
                raise ContactDeleted from None

    def discard(self) -> None:
        """Close the content, and remove the file unless it was kept."""
        with self._lock:
            self._ended = True
            if self._descriptor is not None:
                os.close(self._descriptor)
                self._descriptor = None
            shutil.rmtree(self._folder, ignore_errors=True)


def _random() -> str:
    return secrets.token_hex(16)


def _make_folder(path: Path) -> None:
    """Create a folder for the server's user alone, unless it exists, and wait until the disk has its name."""
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        return
    with suppress(PermissionError):  # the server may not be allowed to read the folder above its own
        _sync_folder(path.parent)


def _move(folder: Path, target: Path) -> None:
    """Rename a folder, and wait until the disk has that. Raises `FileNotFoundError` if the folder is gone."""
    os.rename(folder, target)
    _sync_folder(target.parent)
    _sync_folder(folder.parent)


def _names(folder: Path) -> list[str]:
    """Return the names of a folder's entries; none if it does not exist."""
    try:
        return os.listdir(folder)
    except FileNotFoundError:
        return []


def _size_of(path: str) -> int:
    """Return the length of a file; 0 if it is gone."""
    try:
        return os.stat(path, follow_symlinks=False).st_size
    except FileNotFoundError:
        return 0


def _read_about(folder: Path) -> StoredFile | None:
    """Return the description of the file in a folder; None if there is none."""
    try:
        data = (folder / "about").read_bytes()
    except FileNotFoundError:
        return None
    return msgspec.json.decode(data, type=StoredFile)


def _remove(folder: Path) -> None:
    """Remove a folder with its content. Raises `OSError` if that fails, but not if another process removes it too."""
    shutil.rmtree(folder, ignore_errors=True)
    if folder.exists():
        shutil.rmtree(folder)  # raises the reason


def _is_left(folder: Path) -> bool:
    """Return whether nobody receives this file any more. Call it while its contact is locked."""
    try:
        descriptor = os.open(folder / "content", _READ)
    except FileNotFoundError:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True


def _write_new(path: Path, data: bytes) -> None:
    """Write a new file for the server's user alone, and wait until the disk has it."""
    descriptor = os.open(path, _CREATE, 0o600)
    try:
        _write_all(descriptor, data)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write_all(descriptor: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def _sync_folder(path: Path) -> None:
    """Wait until the disk has the entries of a folder."""
    descriptor = os.open(path, _READ | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
