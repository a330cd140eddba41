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
import fcntl
import hashlib
import json
import os
import secrets
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from jimsapi.plugins.errors import StartError
from jimsapi.service.inbound import check_contact_id
from jimsapi.threads.errors import InputRefused

VERSION = 1

PREFIX = "jims_"
"""Begins every new key: scanners for leaked secrets can know it, and no shell takes it for an option."""

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
        document = json.loads(data.decode("utf-8-sig"), object_pairs_hook=_each_once)
        if isinstance(document, dict) and isinstance(version := document.get("version"), int) and version != VERSION:
            raise ValueError(f"it is of version {version}, and this jimsapi knows version {VERSION}")
        keys = msgspec.convert(document, _Document).keys
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"it is no keys file: {_syntax(error)}") from None
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


def _syntax(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg} in line {error.lineno}"
    return "it is not UTF-8 text" if isinstance(error, UnicodeDecodeError) else "it nests too deeply"


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
        """Keep others from changing the file meanwhile. The lock is a file of its own: the keys file is replaced."""
        try:
            descriptor = os.open(f"{self._path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StartError(f"cannot write beside {self._path}: {error.strerror}") from None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _write(self, keys: tuple[NamedKey, ...]) -> None:
        """Replace the file in one step, so that a reader has the old or the new one, also after a power cut."""
        data = msgspec.json.format(msgspec.json.encode(_Document(VERSION, keys)), indent=2) + b"\n"
        folder = self._path.parent
        try:
            descriptor, temporary = tempfile.mkstemp(prefix=f".{self._path.name}.", dir=folder)  # its mode is 0600
            try:
                with open(descriptor, "wb") as file:
                    self._keep_owner(descriptor)
                    file.write(data)
                    file.flush()
                    os.fsync(descriptor)
                os.replace(temporary, self._path)
            except BaseException:
                os.unlink(temporary)
                raise
            _sync(folder)
        except OSError as error:
            raise StartError(f"cannot write {self._path}: {error.strerror}") from None

    def _keep_owner(self, descriptor: int) -> None:
        """Whom the operator let read the file reads the new one too: root may change what another user serves."""
        with contextlib.suppress(FileNotFoundError, PermissionError):
            status = os.stat(self._path)
            os.fchown(descriptor, status.st_uid, status.st_gid)
            os.fchmod(descriptor, status.st_mode & 0o777)


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
