"""The keys file: named bearer keys, of which only hashes are kept.

    {
      "version": 1,
      "keys": [
        {"name": "website", "sha256": "…", "created": "2026-11-25T12:00:00Z",
         "scopes": ["chat"], "contact_id": "ann", "expires": "2027-01-01T00:00:00Z"}
      ]
    }

`scopes` (all), `contact_id` (any) and `expires` (never) may be left out. Whatever else is missing, unknown or odd
refuses the file whole: a limit that somebody misspelt must not become no limit.

A key is hashed with SHA-256, once and without salt. A slow hash protects secrets that can be guessed; these are 256
random bits, which cannot, and every request would pay for it.
"""

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import re
import secrets
import stat
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from jimsapi.plugins.errors import StartError
from jimsapi.runs.inbound import check_contact_id
from jimsapi.threads.errors import InputRefused

VERSION = 1

PREFIX = "jims_"
"""Begins every new key: scanners for leaked secrets can know it, and no shell takes it for an option."""

DEEPEST = 32
"""How many levels of lists and objects a keys file may have. It needs four; parsers of JSON fail or not, by their kind,
at some thousands."""

Name = Annotated[str, Meta(pattern=r"\A[A-Za-z0-9][A-Za-z0-9._@-]{0,63}\Z")]
Moment = Annotated[datetime, Meta(tz=True)]
Scope = Literal["chat", "threads"]


class NamedKey(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One key, as the file has it."""

    name: Name
    sha256: Annotated[str, Meta(pattern=r"\A[0-9a-f]{64}\Z")]
    created: Moment
    scopes: Annotated[tuple[Scope, ...], Meta(min_length=1)] | UnsetType = UNSET
    contact_id: str | UnsetType = UNSET
    expires: Moment | UnsetType = UNSET

    def has_expired(self, now: datetime) -> bool:
        """Whether the key is refused at this moment."""
        return self.expires is not UNSET and now >= self.expires


class _Document(msgspec.Struct, forbid_unknown_fields=True):
    version: int
    keys: tuple[NamedKey, ...]


def parse_keys(data: bytes) -> tuple[NamedKey, ...]:
    """The keys of a file. Raises `ValueError` that says what is wrong and where; it quotes no hash and no contact."""
    try:
        text = data.decode("utf-8-sig")
        if _nests_deeper(text, DEEPEST):
            raise ValueError("it is no keys file: it nests too deeply")
        document = json.loads(text, object_pairs_hook=_each_once)
        if isinstance(document, dict) and isinstance(version := document.get("version"), int) and version != VERSION:
            raise ValueError(f"it is of version {version}, and this jimsapi knows version {VERSION}")
        keys = msgspec.convert(document, _Document).keys
    except UnicodeDecodeError:
        raise ValueError("it is no keys file: it is not UTF-8 text") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"it is no keys file: {error.msg} in line {error.lineno}") from None
    except msgspec.ValidationError as error:
        raise ValueError(f"it is no keys file: {error}") from None
    names: set[str] = set()
    hashes: set[str] = set()
    for key in keys:
        if key.name in names:
            raise ValueError(f"two keys are named {key.name}")
        if key.sha256 in hashes:
            raise ValueError(f"the key {key.name} has the hash of another")
        names.add(key.name)
        hashes.add(key.sha256)
        if key.contact_id is not UNSET and (fault := _contact_fault(key.contact_id)):
            raise ValueError(f"the contact_id of the key {key.name} is none: {fault}")
    return keys


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ValueError("a field stands twice in one object")
    return fields


# What stands in a string is text, brackets too.
_STRING_OR_BRACKET = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|[\[\]{}]', re.DOTALL)


def _nests_deeper(text: str, levels: int) -> bool:
    """Whether lists and objects stand more than so many levels in one another."""
    depth = 0
    for found in _STRING_OR_BRACKET.finditer(text):
        depth += {"[": 1, "{": 1, "]": -1, "}": -1}.get(found[0], 0)
        if depth > levels:
            return True
    return False


def digest_of(key: bytes) -> bytes:
    """The hash of a key, as it is compared."""
    return hashlib.sha256(key).digest()


class KeysFile:
    """A keys file that is changed: by one process at a time, and never seen half-written.

    Every method raises `StartError` if the file cannot be read or written, or is faulty.
    """

    def __init__(self, path: Path) -> None:
        # A link's target is what is replaced, not the link.
        self._path = Path(os.path.realpath(path))

    def read(self) -> tuple[NamedKey, ...]:
        """The keys, in the order they were made."""
        try:
            return parse_keys(self._path.read_bytes())
        except OSError as error:
            raise StartError(f"cannot read {self._path}: {error.strerror}") from None
        except ValueError as error:
            raise StartError(f"{self._path}: {error}") from None

    def add(
        self,
        name: str,
        *,
        scopes: tuple[Scope, ...] = (),
        contact_id: str | None = None,
        expires: datetime | None = None,
    ) -> tuple[str, NamedKey]:
        """Make a key. Returns it, which is kept nowhere, and its entry. A new file is its owner's alone to read.

        No `scopes` are all; None is any contact, and no end. Raises `StartError` also for a name that is taken or is no
        name, a contact that no store takes, and an end that is past.
        """
        key = PREFIX + secrets.token_urlsafe(32)
        limits: dict[str, Any] = {"scopes": scopes or UNSET, "expires": UNSET if expires is None else expires}
        if contact_id is not None:
            if fault := _contact_fault(contact_id):
                raise StartError(f"--contact is no contact_id: {fault}")
            limits["contact_id"] = contact_id
        now = datetime.now(UTC)
        if expires is not None and expires <= now:
            raise StartError(f"--expires: {expires.isoformat()} is past")
        entry = NamedKey(
            name=_check_name(name), sha256=digest_of(key.encode()).hex(), created=now.replace(microsecond=0), **limits
        )
        with self._locked():
            keys = self.read() if self._path.exists() else ()
            if name in (one.name for one in keys):
                raise StartError(f"{self._path} has a key {name} already; take another name, or revoke that one first")
            self._write((*keys, entry))
        return key, entry

    def revoke(self, name: str) -> None:
        """Take a key out. Raises `StartError` also if there is none of this name."""
        with self._locked():
            keys = self.read()
            left = tuple(key for key in keys if key.name != name)
            if len(left) == len(keys):
                names = ", ".join(key.name for key in keys) or "none"
                raise StartError(f"{self._path} has no key {name} (there are: {names})")
            self._write(left)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Keep others from changing the file meanwhile. The lock is on its folder: the file itself is replaced, and a
        lock file would belong to whoever came first, and shut out the others."""
        folder = self._path.parent
        descriptor = None
        try:
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        except OSError as error:
            if descriptor is not None:
                os.close(descriptor)
            raise StartError(f"cannot lock {folder} to change {self._path}: {error.strerror}") from None
        try:
            yield
        finally:
            os.close(descriptor)

    def _write(self, keys: tuple[NamedKey, ...]) -> None:
        """Replace the file in one step, so that a reader has the old or the new one, also after a power cut."""
        data = msgspec.json.format(msgspec.json.encode(_Document(VERSION, keys)), indent=2) + b"\n"
        folder = self._path.parent
        try:
            descriptor, temporary = tempfile.mkstemp(prefix=f".{self._path.name}.", dir=folder)  # its mode is 0600
        except OSError as error:
            raise StartError(f"cannot make a file in {folder} to change {self._path}: {error.strerror}") from None
        try:
            try:
                with open(descriptor, "wb") as file:
                    self._keep_readers(descriptor)
                    file.write(data)
                    file.flush()
                    os.fsync(descriptor)
                os.replace(temporary, self._path)
            except BaseException:
                os.unlink(temporary)
                raise
            _sync(folder)
        except OSError as error:
            by_itself = error.errno in (errno.EBUSY, errno.EXDEV)
            way_out = "; if the file is mounted by itself, mount its folder, not the file" if by_itself else ""
            raise StartError(f"cannot write {self._path}: {error.strerror}{way_out}") from None

    def _keep_readers(self, descriptor: int) -> None:
        """Give the new file the owner, group and mode of the old one: who may read that reads this too.

        Raises `StartError` if it cannot be done. A server that could not read the new file would keep the old keys,
        while whoever revoked one believes that it is refused.
        """
        try:
            old = os.stat(self._path)
        except FileNotFoundError:
            return
        mode = old.st_mode & 0o777
        with contextlib.suppress(OSError):  # what came of it is looked at, for there are file systems without owners
            os.fchown(descriptor, old.st_uid, old.st_gid)
        with contextlib.suppress(OSError):
            os.fchmod(descriptor, mode)
        new = os.fstat(descriptor)
        same_group = new.st_gid == old.st_gid or not mode & stat.S_IRWXG  # a group without rights loses none
        if new.st_uid != old.st_uid or not same_group or new.st_mode & 0o777 != mode:
            raise StartError(
                f"cannot change {self._path}: it is of user {old.st_uid} and group {old.st_gid} with mode {mode:o}, "
                "and a file of yours would not be: the server might not read it; do this as its owner, or as root"
            )


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _check_name(name: str) -> str:
    try:
        return msgspec.convert(name, Name)
    except msgspec.ValidationError:
        raise StartError(
            f"{name!r} is no name for a key: give a letter or digit, then up to 63 of these or of '.', '_', '@' and '-'"
        ) from None


def _contact_fault(contact_id: str) -> str | None:
    try:
        check_contact_id(contact_id)
    except InputRefused as error:
        return error.message
    return None
