"""The keys file: named bearer keys, stored as hashes.

    {
      "version": 1,
      "keys": [
        {"name": "website", "sha256": "…", "created": "2026-11-25T12:00:00Z",
         "scopes": ["chat"], "contact_id": "ann", "expires": "2027-01-01T00:00:00Z"}
      ]
    }

`scopes` (default: all), `contact_id` (any) and `expires` (never) are optional. If another field is missing, unknown or
invalid, the whole file is invalid: a limit with a misspelt name must not be ignored. A scope may be one of a plugin, so
a server without that plugin accepts it too: a scope that no route requires grants nothing.

A key is hashed once with SHA-256, without salt. A slow hash protects secrets that can be guessed. These keys have 256
random bits, so it would only slow down every request.
"""

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import secrets
import stat
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, UnsetType

from jimsapi.asgi import nesting_depth
from jimsapi.plugins import StartError
from jimsapi.runs import check_contact_id
from jimsapi.threads import InputRefused

VERSION = 1

PREFIX = "jims_"
"""Every new key begins with it. Scanners for leaked secrets can recognise it, and a key never looks like a flag."""

MAX_DEPTH = 32
"""Levels of lists and objects that a keys file may have. It needs four. With thousands, JSON parsers may fail."""

Name = Annotated[str, Meta(pattern=r"\A[A-Za-z0-9][A-Za-z0-9._@-]{0,63}\Z")]
AwareDatetime = Annotated[datetime, Meta(tz=True)]
Scope = Annotated[str, Meta(pattern=r"\A[\x21\x23-\x5b\x5d-\x7e]{1,100}\Z")]
"""The name of a scope: printable ASCII without spaces, quotes and backslashes (RFC 6749, 3.3)."""


class NamedKey(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One key of a keys file."""

    name: Name
    sha256: Annotated[str, Meta(pattern=r"\A[0-9a-f]{64}\Z")]
    created: AwareDatetime
    scopes: Annotated[tuple[Scope, ...], Meta(min_length=1)] | UnsetType = UNSET
    contact_id: str | UnsetType = UNSET
    expires: AwareDatetime | UnsetType = UNSET

    def has_expired(self, now: datetime) -> bool:
        """Return whether the key is expired at the time `now`."""
        return self.expires is not UNSET and now >= self.expires


class _Document(msgspec.Struct, forbid_unknown_fields=True):
    version: int
    keys: tuple[NamedKey, ...]


def parse_keys(data: bytes) -> tuple[NamedKey, ...]:
    """Parse a keys file. Raises `ValueError` for an invalid one; the message does not quote hashes or contacts."""
    try:
        text = data.decode("utf-8-sig")
        if nesting_depth(data) > MAX_DEPTH:
            raise ValueError("it is not a keys file: it nests too deeply")
        document = json.loads(text, object_pairs_hook=_without_duplicates)
        if isinstance(document, dict) and isinstance(version := document.get("version"), int) and version != VERSION:
            raise ValueError(f"it has version {version}, and this jimsapi supports version {VERSION}")
        keys = msgspec.convert(document, _Document).keys
    except UnicodeDecodeError:
        raise ValueError("it is not a keys file: it is not UTF-8 text") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"it is not a keys file: {error.msg} in line {error.lineno}") from None
    except msgspec.ValidationError as error:
        raise ValueError(f"it is not a keys file: {error}") from None
    names: set[str] = set()
    hashes: set[str] = set()
    for key in keys:
        if key.name in names:
            raise ValueError(f"two keys are named {key.name}")
        if key.sha256 in hashes:
            raise ValueError(f"the key {key.name} has the hash of another key")
        names.add(key.name)
        hashes.add(key.sha256)
        if key.contact_id is not UNSET and (fault := _contact_fault(key.contact_id)):
            raise ValueError(f"the key {key.name} has an invalid contact_id: {fault}")
    return keys


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ValueError("an object has the same field twice")
    return fields


def digest_of(key: bytes) -> bytes:
    """Return the SHA-256 hash of a key."""
    return hashlib.sha256(key).digest()


class KeysFile:
    """Reads and changes a keys file. Only one process changes it at a time, and readers never see a partial file.

    Every method raises `StartError` if the file cannot be read or written, or is invalid.
    """

    def __init__(self, path: Path) -> None:
        # If the path is a symbolic link, replace its target and keep the link.
        self._path = Path(os.path.realpath(path))

    def read(self) -> tuple[NamedKey, ...]:
        """Return the keys in the order of their creation."""
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
        scopes: tuple[str, ...] = (),
        contact_id: str | None = None,
        expires: datetime | None = None,
    ) -> tuple[str, NamedKey]:
        """Create a key, add it to the file, and return the key, which is not stored, and its entry.

        Without `scopes` the key has all scopes. With None for `contact_id` it is valid for any contact, and with None
        for `expires` it does not expire. A new file is readable only by its owner.

        Also raises `StartError` if the name is invalid or used, a scope or the contact is invalid, or `expires` is in
        the past.
        """
        key = PREFIX + secrets.token_urlsafe(32)
        limits: dict[str, Any] = {
            "scopes": _check_scopes(scopes) or UNSET,
            "expires": UNSET if expires is None else expires,
        }
        if contact_id is not None:
            if fault := _contact_fault(contact_id):
                raise StartError(f"--contact is not a valid contact_id: {fault}")
            limits["contact_id"] = contact_id
        now = datetime.now(UTC)
        if expires is not None and expires <= now:
            raise StartError(f"--expires: {expires.isoformat()} is in the past")
        entry = NamedKey(
            name=_check_name(name), sha256=digest_of(key.encode()).hex(), created=now.replace(microsecond=0), **limits
        )
        with self._locked():
            keys = self.read() if self._path.exists() else ()
            if name in (one.name for one in keys):
                raise StartError(f"{self._path} already has a key {name}; use another name, or revoke that key first")
            self._write((*keys, entry))
        return key, entry

    def revoke(self, name: str) -> None:
        """Remove a key. Also raises `StartError` if there is no key of this name."""
        with self._locked():
            keys = self.read()
            remaining = tuple(key for key in keys if key.name != name)
            if len(remaining) == len(keys):
                names = ", ".join(key.name for key in keys) or "none"
                raise StartError(f"{self._path} has no key {name} (there are: {names})")
            self._write(remaining)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold a lock, so that no other process changes the file.

        The lock is on the folder. The file itself is replaced, and a lock file would belong to the first user who needs
        it, so that other users could not open it.
        """
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
        """Replace the file atomically: readers see the old or the new file, also after a power failure."""
        data = msgspec.json.format(msgspec.json.encode(_Document(VERSION, keys)), indent=2) + b"\n"
        folder = self._path.parent
        try:
            descriptor, temporary = tempfile.mkstemp(prefix=f".{self._path.name}.", dir=folder)  # its mode is 0600
        except OSError as error:
            raise StartError(f"cannot create a file in {folder} to change {self._path}: {error.strerror}") from None
        try:
            try:
                with open(descriptor, "wb") as file:
                    self._copy_permissions(descriptor)
                    file.write(data)
                    file.flush()
                    os.fsync(descriptor)
                os.replace(temporary, self._path)
            except BaseException:
                os.unlink(temporary)
                raise
            _sync(folder)
        except OSError as error:
            is_mounted = error.errno in (errno.EBUSY, errno.EXDEV)
            advice = "; if the file is mounted by itself, mount its folder, not the file" if is_mounted else ""
            raise StartError(f"cannot write {self._path}: {error.strerror}{advice}") from None

    def _copy_permissions(self, descriptor: int) -> None:
        """Give the new file the owner, group and mode of the old file.

        Raises `StartError` if that is not possible. If the server could not read the new file, it would go on accepting
        a key that was just revoked.
        """
        try:
            old = os.stat(self._path)
        except FileNotFoundError:
            return
        mode = old.st_mode & 0o777
        with contextlib.suppress(OSError):  # some file systems have no owners, so check the result instead
            os.fchown(descriptor, old.st_uid, old.st_gid)
        with contextlib.suppress(OSError):
            os.fchmod(descriptor, mode)
        new = os.fstat(descriptor)
        same_group = new.st_gid == old.st_gid or not mode & stat.S_IRWXG  # a group without rights does not matter
        if new.st_uid != old.st_uid or not same_group or new.st_mode & 0o777 != mode:
            raise StartError(
                f"cannot change {self._path}: it belongs to user {old.st_uid} and group {old.st_gid} with mode "
                f"{mode:o}, and a file of yours would not, so the server might not be able to read it; run this as its "
                "owner, or as root"
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
            f"{name!r} is not a valid key name: use a letter or digit, then up to 63 letters, digits, '.', '_', '@' or "
            "'-'"
        ) from None


def _check_scopes(scopes: tuple[str, ...]) -> tuple[str, ...]:
    for scope in scopes:
        try:
            msgspec.convert(scope, Scope)
        except msgspec.ValidationError:
            fault = "use up to 100 printable ASCII characters without spaces, quotes and backslashes"
            raise StartError(f"{scope!r} is not a valid scope: {fault}") from None
    return scopes


def _contact_fault(contact_id: str) -> str | None:
    try:
        check_contact_id(contact_id)
    except InputRefused as error:
        return error.message
    return None
