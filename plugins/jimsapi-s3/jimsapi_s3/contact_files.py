"""The files of contacts in a bucket. Everything here blocks; `S3Store` calls it in threads.

    key                                 a secret from which the digests are made
    files/<contact>/about/<file>        the description of a file as JSON; empty while the file is received
    files/<contact>/content/<file>      its content
    files/<contact>/same/<digest>       the `<file>` that has this name, type and content

`<contact>` and `<digest>` are digests, and `<file>` is random. So no key contains a text of a client. `<contact>` and
`<file>` together are the `file_id`. `<file>` ends with the number of bytes that are reserved for the file, so that a
list of the objects shows how many bytes a contact uses.

The description is what counts: a file exists if its description is neither empty nor `REMOVED`. S3 replaces an object
in one step, and only if it is still the one that the caller expects. So a received file becomes complete when its empty
description is replaced, and that fails if another process has deleted the contact meanwhile. A crash leaves an empty
description. It is removed with the content when `ABANDONED_AFTER` has passed and the contact sends another file.
"""

import hmac
import re
import secrets
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import datetime, timedelta
from hashlib import sha256

import msgspec

from jimsapi.threads import (
    ContactDeleted,
    FilePage,
    InvalidCursor,
    StoredFile,
    StoredFileNotFound,
    StoreUnavailable,
    StoreUnusable,
)
from jimsapi_s3.bucket import Bucket, Entry, Missing, NotAsExpected

LEAST = 65_536
"""Bytes that each file counts at least. Otherwise a contact could store any number of empty files."""
ABANDONED_AFTER = timedelta(minutes=10)
"""An upload that has not renewed its description for so long was left by a crash. By the clock of the storage."""
REMOVED = b"removed"
"""The description of an abandoned upload that is being removed."""

KEY = "key"
_KEY_LENGTH = 32
_DIGEST = 32
"""Characters of a digest."""
_ID = re.compile(r"[0-9a-f]{64}-[0-9a-f]{1,12}")
_READ_AT_ONCE = 8
_TRIES, _PAUSE = 10, 0.2
"""How often a process tries to create the key, and the seconds between."""


class About(StoredFile, frozen=True, kw_only=True):
    """A description: the file, and the digest of its name, type and content."""

    digest: str

    def file(self) -> StoredFile:
        """Return the file as the protocol has it."""
        return StoredFile(
            file_id=self.file_id,
            contact_id=self.contact_id,
            name=self.name,
            type=self.type,
            size=self.size,
            created_at=self.created_at,
        )


class ContactFiles:
    """The files of all contacts in a bucket. Raises `StoreUnavailable` if the storage fails."""

    def __init__(self, bucket: Bucket) -> None:
        self.bucket = bucket
        self._key = b""

    def open(self) -> None:
        """Read the key, or create it if there are no files yet. Raises `StoreUnusable` if it is missing or damaged."""
        try:
            self._key = self.bucket.get(KEY)
        except Missing:
            self._key = self._new_key()
        if len(self._key) != _KEY_LENGTH:
            raise StoreUnusable(
                f"the object {KEY} is damaged, so the files beside it cannot be found; restore it from a backup"
            )

    def digest(self, *parts: str) -> str:
        """Return 128 bits that only the holder of the key can compute."""
        return hmac.new(self._key, msgspec.json.encode(parts), sha256).hexdigest()[:_DIGEST]

    def contact(self, contact_id: str) -> str:
        """Return the digest of a contact, with which its files' identifiers begin."""
        return self.digest("contact", contact_id)

    def find(self, file_id: str, acting_for: str | None) -> StoredFile:
        """Return a file. Raises `StoredFileNotFound` as `FileStore.find` does."""
        if not _ID.fullmatch(file_id):
            raise StoredFileNotFound
        if acting_for is not None and file_id[:_DIGEST] != self.contact(acting_for):
            raise StoredFileNotFound
        about = self.about(file_id)
        if about is None or (acting_for is not None and about.contact_id != acting_for):
            raise StoredFileNotFound
        return about.file()

    def read(self, file_id: str, begin: int, end: int) -> bytes:
        """Return a part of the content. Raises `StoredFileNotFound` if the file was deleted."""
        try:
            if begin < end:
                return self.bucket.get_part(content_key(file_id), begin, end)
            self.bucket.object_size(content_key(file_id))
        except Missing:
            raise StoredFileNotFound from None
        return b""

    def page(self, contact_id: str, limit: int, after: str | None) -> FilePage:
        """Return a page of a contact's files, ordered by their identifiers. Raises `InvalidCursor`."""
        contact = self.contact(contact_id)
        if after is not None and not (_ID.fullmatch(after) and after.startswith(contact)):
            raise InvalidCursor
        found: list[str] = []
        start = None if after is None else about_key(after)
        for entry in self.bucket.entries(_folder(contact, "about"), start, min(limit + 1, 1000)):
            if _is_complete(entry):
                found.append(contact + _name(entry))
                if len(found) > limit:
                    break
        with ThreadPoolExecutor(_READ_AT_ONCE) as threads:
            described = list(threads.map(self.about, found[:limit]))
        files = [about.file() for about in described if about is not None]
        return FilePage(files, found[limit - 1] if len(found) > limit else None)

    def delete(self, file_id: str) -> None:
        """Delete a file. Raises `StoredFileNotFound` if it was deleted before.

        The description is deleted last, so that the call can be repeated if the storage fails meanwhile.
        """
        about = self.about(file_id)
        if about is None:
            raise StoredFileNotFound
        self.bucket.delete([same_key(file_id, about.digest)])
        self.bucket.delete([content_key(file_id)])
        self.bucket.delete([about_key(file_id)])

    def delete_contact(self, contact_id: str) -> None:
        """Delete all files of a contact, also those that are being received.

        Files whose upload begins after the descriptions were listed are not touched.
        """
        contact = self.contact(contact_id)
        contents = [_name(entry) for entry in self.bucket.entries(_folder(contact, "content"))]
        same = [entry.key for entry in self.bucket.entries(_folder(contact, "same"))]
        abouts = [entry.key for entry in self.bucket.entries(_folder(contact, "about"))]
        self.bucket.delete(same)
        self.bucket.delete(abouts)
        self._delete_contents({contact + name for name in [*contents, *(key.rpartition("/")[2] for key in abouts)]})

    def about(self, file_id: str) -> About | None:
        """Return the description of a file; None if the file does not exist or is not complete."""
        try:
            data = self.bucket.get(about_key(file_id))
        except Missing:
            return None
        if data in (b"", REMOVED):
            return None
        try:
            return msgspec.json.decode(data, type=About)
        except msgspec.MsgspecError as error:
            raise StoreUnavailable(f"the object {about_key(file_id)} is damaged: {error}", "storage error") from error

    def same(self, contact: str, digest: str) -> StoredFile | None:
        """Return the file of a contact that has this digest; None if there is none."""
        try:
            name = self.bucket.get(f"{_folder(contact, 'same')}{digest}").decode("ascii")
        except Missing:
            return None
        about = self.about(contact + name)
        return None if about is None or about.digest != digest else about.file()

    def used_beside(self, file_id: str) -> int:
        """Return how many bytes the files of a contact count, without a file of it that is being received.

        Removes what crashes have left of the contact's files. Raises `ContactDeleted` if the description of the file is
        gone. The contents are listed first: if one of them has no description then, the description was deleted.
        """
        contact, own = file_id[:_DIGEST], file_id[_DIGEST:]
        contents = {_name(entry): entry.size for entry in self.bucket.entries(_folder(contact, "content"))}
        abouts = {_name(entry): entry for entry in self.bucket.entries(_folder(contact, "about"))}
        if own not in abouts:
            raise ContactDeleted
        now = abouts.pop(own).stored_at
        abandoned = {name: entry for name, entry in abouts.items() if _is_abandoned(entry, now)}
        for name, entry in abandoned.items():
            self.remove_abandoned(contact + name, entry.tag)
        self._delete_contents({contact + name for name in contents.keys() - abouts.keys() - {own}})
        kept = abouts.keys() - abandoned.keys()
        return sum(max(contents.get(name, _reserved(name)), LEAST) for name in kept)

    def remove_abandoned(self, file_id: str, tag: str) -> None:
        """Remove an upload, unless it becomes complete at this very moment.

        `tag` is the entity tag that its description had when the upload seemed to be abandoned.
        """
        try:
            self.bucket.replace(about_key(file_id), tag, REMOVED)
        except NotAsExpected:
            if self._is_alive(file_id):
                return
        self._delete_contents({file_id})
        self.bucket.delete([about_key(file_id)])

    def _is_alive(self, file_id: str) -> bool:
        """Return whether an upload is complete or goes on, although it seemed to be abandoned."""
        try:
            return self.bucket.get(about_key(file_id)) != REMOVED
        except Missing:
            return False

    def _delete_contents(self, file_ids: set[str]) -> None:
        """Delete contents, also the parts of those that are not complete."""
        if not file_ids:
            return
        keys = {content_key(file_id) for file_id in file_ids}
        for key, upload in self.bucket.unfinished(_folder(next(iter(file_ids))[:_DIGEST], "content")):
            if key in keys:
                self.bucket.abort_parts(key, upload)
        self.bucket.delete(keys)

    def _new_key(self) -> bytes:
        if next(self.bucket.entries("files/", page=1), None) is not None:
            raise StoreUnusable(
                f"the object {KEY} is missing, so the files beside it cannot be found; restore it from a backup"
            )
        for _ in range(_TRIES):
            try:
                self.bucket.create(KEY, key := secrets.token_bytes(_KEY_LENGTH))
            except NotAsExpected:  # another process is faster, and may not have its answer yet
                with suppress(Missing):
                    return self.bucket.get(KEY)
                time.sleep(_PAUSE)
            else:
                return key
        raise StoreUnusable(f"the object {KEY} cannot be created, because other servers try that too; start again")


def new_id(contact: str, reserved: int) -> str:
    """Return the identifier of a new file, for which `reserved` bytes are reserved."""
    return f"{contact}{secrets.token_hex(16)}-{reserved:x}"


def about_key(file_id: str) -> str:
    """Return the key of a file's description."""
    return f"{_folder(file_id[:_DIGEST], 'about')}{file_id[_DIGEST:]}"


def content_key(file_id: str) -> str:
    """Return the key of a file's content."""
    return f"{_folder(file_id[:_DIGEST], 'content')}{file_id[_DIGEST:]}"


def same_key(file_id: str, digest: str) -> str:
    """Return the key of the object that has the name of a contact's file with this digest."""
    return f"{_folder(file_id[:_DIGEST], 'same')}{digest}"


def _folder(contact: str, kind: str) -> str:
    return f"files/{contact}/{kind}/"


def _name(entry: Entry) -> str:
    return entry.key.rpartition("/")[2]


def _reserved(name: str) -> int:
    return int(name.rpartition("-")[2], 16)


def _is_complete(entry: Entry) -> bool:
    return entry.size not in (0, len(REMOVED))


def _is_abandoned(entry: Entry, now: datetime) -> bool:
    return not _is_complete(entry) and now - entry.stored_at > ABANDONED_AFTER
