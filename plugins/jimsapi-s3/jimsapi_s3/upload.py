"""A file that is being received. Everything here blocks; `S3Store` calls it in threads."""

import threading
import time
from contextlib import suppress
from datetime import UTC, datetime
from hashlib import sha256

import msgspec

from jimsapi.threads import ContactDeleted, FileQuotaExceeded, NewFile, StoredFile, StoreUnavailable
from jimsapi_s3.bucket import Missing, NotAsExpected
from jimsapi_s3.contact_files import (
    ABANDONED_AFTER,
    LEAST,
    About,
    ContactFiles,
    about_key,
    content_key,
    new_id,
    same_key,
)

PART = 5 * 1024 * 1024
"""Bytes that are sent to the storage at once. S3 allows no smaller parts."""
MOST_PARTS = 10_000
"""S3 allows no more parts of one object."""
RENEWED_AFTER = 60.0
"""Seconds after which the description is stored anew, so that other processes see that the upload goes on."""


class Upload:
    """A file that is being received.

    Call `begin`, `add` for each piece, `send` whenever `is_full`, and `keep`; and `discard` in any case. A thread goes
    on with a call if the task that waits for it is cancelled. So the calls wait for each other, and do nothing after
    `discard`.
    """

    def __init__(self, files: ContactFiles, new: NewFile, quota: int) -> None:
        self._files = files
        self._bucket = files.bucket
        self._new = new
        self._quota = quota
        self._contact = files.contact(new.contact_id)
        self._lock = threading.Lock()
        self._ended = False
        self._file_id: str | None = None
        self._tag = ""
        self._reserved = 0
        self._renewed_at = 0.0
        self._part = PART
        self._gathered = bytearray()
        self._size = 0
        self._sha = sha256()
        self._parts: str | None = None
        self._tags: list[str] = []
        self._same: str | None = None
        self._kept = False

    def begin(self) -> None:
        """Reserve room for the file. Raises `FileQuotaExceeded` if it does not fit."""
        with self._lock:
            if self._ended:
                return
            size, quota = self._new.size, self._quota
            if max(size or 0, LEAST) > quota:
                raise FileQuotaExceeded(quota)
            room = self._reserve(min(self._new.limit, quota) if size is None else size)
            if size is None and self._file_id is None and room >= LEAST:
                self._reserve(room)
            if self._file_id is None:
                raise FileQuotaExceeded(quota)
            self._part = max(PART, -(-self._reserved // MOST_PARTS))

    @property
    def is_full(self) -> bool:
        """Whether `send` is due: there is a whole part, or other processes have to see that the upload goes on."""
        return len(self._gathered) > self._part or self._age > RENEWED_AFTER

    def add(self, piece: bytes) -> None:
        """Append a piece. Raises `FileQuotaExceeded` if the content gets longer than what could be reserved."""
        self._size += len(piece)
        if self._size > self._reserved:
            raise FileQuotaExceeded(self._quota)
        self._gathered += piece

    def send(self) -> None:
        """Send the whole parts. Raises `ContactDeleted` if the contact was deleted meanwhile."""
        with self._lock:
            if self._ended:
                return
            while len(self._gathered) > self._part:
                part = self._gathered[: self._part]
                del self._gathered[: self._part]
                self._send_part(part)
            if self._age > RENEWED_AFTER:
                self._describe(b"")
                self._renewed_at = time.monotonic()

    def keep(self) -> StoredFile:
        """Complete the file, and return it. Raises `ContactDeleted` if its contact was deleted meanwhile."""
        with self._lock:
            if self._ended or self._file_id is None:
                raise ContactDeleted  # nobody waits for this call any more
            self._complete_content()
            digest = self._files.digest("same", self._new.name, self._new.type, self._sha.hexdigest())
            existing = self._files.same(self._contact, digest)
            if existing is not None:
                self._describe(b"")  # raises if the contact was deleted
                return existing
            about = self._about(digest)
            self._same = same_key(about.file_id, digest)
            self._bucket.put(self._same, about.file_id[len(self._contact) :].encode())
            self._describe(msgspec.json.encode(about))
            self._kept = True
            return about.file()

    def discard(self) -> None:
        """Remove the file unless it was kept. What the storage does not remove now, a later upload removes."""
        with self._lock:
            self._ended = True
            if self._file_id is not None and not self._kept:
                with suppress(StoreUnavailable):
                    self._remove(self._file_id)

    @property
    def _age(self) -> float:
        """Seconds since the description was stored."""
        return time.monotonic() - self._renewed_at

    def _reserve(self, size: int) -> int:
        """Reserve `size` bytes if they fit. Returns how many the contact had left.

        The description is stored before the others are counted. So of two processes that do this at the same time, at
        least one sees the other.
        """
        self._file_id, self._reserved = new_id(self._contact, size), size
        self._tag = self._bucket.put(about_key(self._file_id), b"")
        self._renewed_at = time.monotonic()
        room = self._quota - self._files.used_beside(self._file_id)
        if max(size, LEAST) > room:
            self._bucket.delete([about_key(self._file_id)])
            self._file_id = None
        return room

    def _remove(self, file_id: str) -> None:
        """Delete all that was stored. The description comes first: a file with a description must have its content."""
        self._bucket.delete([about_key(file_id)])
        key = content_key(file_id)
        if self._parts is not None:
            self._bucket.abort_parts(key, self._parts)
        self._bucket.delete([key] if self._same is None else [key, self._same])

    def _send_part(self, part: bytearray) -> None:
        assert self._file_id is not None
        key = content_key(self._file_id)
        self._sha.update(part)
        try:
            if self._parts is None:
                self._parts = self._bucket.begin_parts(key)
            self._tags.append(self._bucket.put_part(key, self._parts, len(self._tags) + 1, part))
        except Missing:
            raise self._lost() from None

    def _complete_content(self) -> None:
        assert self._file_id is not None
        key = content_key(self._file_id)
        if self._parts is None:
            self._sha.update(self._gathered)
            self._bucket.put(key, self._gathered)
            return
        self._send_part(self._gathered)
        try:
            self._bucket.join_parts(key, self._parts, self._tags)
        except Missing:
            if not self._is_joined(key):
                raise self._lost() from None

    def _is_joined(self, key: str) -> bool:
        """Return whether the content is complete. A repeated request does not find the parts that the first joined."""
        try:
            return self._bucket.object_size(key) == self._size
        except Missing:
            return False

    def _describe(self, data: bytes) -> None:
        """Replace the empty description. Raises `ContactDeleted` if it is gone."""
        assert self._file_id is not None
        key = about_key(self._file_id)
        try:
            self._tag = self._bucket.replace(key, self._tag, data)
        except NotAsExpected:
            self._tag = self._tag_of(key, data)

    def _tag_of(self, key: str, data: bytes) -> str:
        """Return the tag of the description if it is `data`: a repeated request finds what the first one has stored."""
        try:
            found, tag = self._bucket.get_with_tag(key)
        except Missing:
            raise self._lost() from None
        if found != data:
            raise self._lost()
        return tag

    def _lost(self) -> ContactDeleted | StoreUnavailable:
        """Return the error for an upload that another process has removed."""
        if self._age > ABANDONED_AFTER.total_seconds():
            reason = "the upload paused for too long"
            return StoreUnavailable(f"{reason}, so another process has removed it", reason)
        return ContactDeleted()

    def _about(self, digest: str) -> About:
        assert self._file_id is not None
        return About(
            file_id=self._file_id,
            contact_id=self._new.contact_id,
            name=self._new.name,
            type=self._new.type,
            size=self._size,
            created_at=datetime.now(UTC),
            digest=digest,
        )
