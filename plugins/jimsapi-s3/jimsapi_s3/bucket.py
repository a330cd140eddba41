"""The objects of one bucket. Everything here blocks; `S3Store` calls it in threads.

Each method sends one request, and repeats it if the storage does not answer. All of them raise `StoreUnavailable` if
that does not help. The message is for the log; it has the error code of the storage, and no credentials.
"""

import logging
import os
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from typing import Any, NamedTuple, ParamSpec, TypeVar

import botocore.config  # type: ignore[import-untyped]
import botocore.session  # type: ignore[import-untyped]
from botocore.exceptions import (  # type: ignore[import-untyped]
    BotoCoreError,
    ClientError,
    ConnectionError,
    CredentialRetrievalError,
    HTTPClientError,
    IncompleteReadError,
    NoCredentialsError,
    PartialCredentialsError,
    ProfileNotFound,
    SSOError,
)

from jimsapi.threads import StoreUnavailable
from jimsapi_s3.place import Place

CONNECT_WITHIN = 5.0
"""Seconds within which the storage has to accept a connection."""
ANSWER_WITHIN = 20.0
"""Seconds within which the storage has to answer, or to accept or send more bytes."""
ATTEMPTS = 3
"""How often a request is sent, if the storage does not answer or says that it is busy."""
CONNECTIONS = 32
"""How many connections are kept open."""
AT_ONCE = 1000
"""How many objects one request can delete; S3 allows no more."""

_MISSING = frozenset({"404", "NoSuchKey", "NoSuchUpload", "NotFound"})
_NOT_AS_EXPECTED = frozenset({"409", "412", "ConditionalRequestConflict", "NoSuchKey", "PreconditionFailed"})
_BUSY = frozenset({"503", "RequestTimeout", "ServiceUnavailable", "SlowDown", "ThrottlingException"})
_CREDENTIALS = (CredentialRetrievalError, NoCredentialsError, PartialCredentialsError, ProfileNotFound, SSOError)
_NO_ANSWER = (ConnectionError, HTTPClientError, IncompleteReadError)

Arguments = ParamSpec("Arguments")
T = TypeVar("T")


class Missing(Exception):
    """The object does not exist."""


class NotAsExpected(Exception):
    """The object that a conditional request was to replace or to create is not in the expected state."""


class Entry(NamedTuple):
    """An object of a list: its key, length in bytes, and the time at which it was stored, by the storage's clock.

    `tag` is its entity tag. It is the digest of the content only without encryption, so it has no meaning here.
    """

    key: str
    size: int
    stored_at: datetime
    tag: str


class Bucket:
    """The objects of one bucket. Keys are texts below the folder of the place."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._client: Any = None

    def open(self) -> None:
        """Create the client, which finds the credentials. Sends no request to the bucket.

        Raises `StoreUnavailable` if there are no credentials or if the region is missing.
        """
        _keep_credentials_out_of_logs()
        try:
            self._client = self._call(self._new_client)
        except ClientError as error:  # the service that hands out temporary credentials refused
            raise self._failed(str(error), _code(error)) from None

    def close(self) -> None:
        """Close the connections."""
        if self._client is not None:
            self._client.close()

    def get(self, key: str) -> bytes:
        """Return an object. Raises `Missing`."""
        return self._read(Key=key)[0]

    def get_with_tag(self, key: str) -> tuple[bytes, str]:
        """Return an object and its entity tag. Raises `Missing`."""
        return self._read(Key=key)

    def get_part(self, key: str, begin: int, end: int) -> bytes:
        """Return the bytes from `begin` to before `end` of an object that has at least one of them. Raises `Missing`.

        It has fewer bytes if the object ends before.
        """
        return self._read(Key=key, Range=f"bytes={begin}-{end - 1}")[0]

    def object_size(self, key: str) -> int:
        """Return the number of bytes of an object. Raises `Missing`."""
        answer = self._send("head_object", Key=key)
        return int(answer["ContentLength"])

    def keeps_versions(self, key: str) -> bool:
        """Return whether the bucket keeps old versions, as far as an existing object shows that."""
        version: str = self._send("head_object", Key=key).get("VersionId", "null")
        return version != "null"

    def put(self, key: str, data: bytes | bytearray) -> str:
        """Store an object, in place of any other with this key, and return its entity tag."""
        tag: str = self._send("put_object", Key=key, Body=data)["ETag"]
        return tag

    def create(self, key: str, data: bytes) -> None:
        """Store a new object. Raises `NotAsExpected` if there is one with this key."""
        self._send("put_object", Key=key, Body=data, IfNoneMatch="*")

    def replace(self, key: str, tag: str, data: bytes) -> str:
        """Store an object in place of the one with the entity tag `tag`, and return the new tag.

        Raises `NotAsExpected` if the object is missing or has another tag.
        """
        new: str = self._send("put_object", Key=key, Body=data, IfMatch=tag)["ETag"]
        return new

    def delete(self, keys: Iterable[str]) -> None:
        """Delete objects, in any order. Those that do not exist are no error."""
        every = list(keys)
        for start in range(0, len(every), AT_ONCE):
            objects = [{"Key": self._place.folder + key} for key in every[start : start + AT_ONCE]]
            answer = self._send("delete_objects", None, Delete={"Objects": objects, "Quiet": True})
            for error in answer.get("Errors", ()):
                raise self._failed(f"delete_objects: {error.get('Code')}: {error.get('Message')}", error.get("Code"))

    def entries(self, prefix: str, after: str | None = None, page: int = 1000) -> Iterator[Entry]:
        """Yield the objects whose keys begin with `prefix`, ordered by their keys.

        `after` is the key before the first one. Each request returns at most `page` objects.
        """
        start = {} if after is None else {"StartAfter": self._place.folder + after}
        while True:
            answer = self._send("list_objects_v2", None, Prefix=self._place.folder + prefix, MaxKeys=page, **start)
            for item in answer.get("Contents", ()):
                key = item["Key"].removeprefix(self._place.folder)
                yield Entry(key, item["Size"], item["LastModified"], item["ETag"])
            if not answer.get("IsTruncated"):
                return
            start = {"ContinuationToken": answer["NextContinuationToken"]}

    def begin_parts(self, key: str) -> str:
        """Begin an object that is sent in parts, and return the identifier of this upload."""
        upload: str = self._send("create_multipart_upload", Key=key)["UploadId"]
        return upload

    def put_part(self, key: str, upload: str, number: int, data: bytes | bytearray) -> str:
        """Store a part of an object, and return its entity tag. Raises `Missing` if the upload was aborted."""
        answer = self._send("upload_part", Key=key, UploadId=upload, PartNumber=number, Body=data)
        tag: str = answer["ETag"]
        return tag

    def join_parts(self, key: str, upload: str, tags: list[str]) -> None:
        """Complete an object that was sent in parts. Raises `Missing` if the upload was aborted or is complete."""
        parts = [{"PartNumber": number, "ETag": tag} for number, tag in enumerate(tags, 1)]
        self._send("complete_multipart_upload", Key=key, UploadId=upload, MultipartUpload={"Parts": parts})

    def abort_parts(self, key: str, upload: str) -> None:
        """Delete the parts of an object that is not complete. Does nothing if there are none."""
        try:
            self._send("abort_multipart_upload", Key=key, UploadId=upload)
        except Missing:
            return

    def unfinished(self, prefix: str) -> Iterator[tuple[str, str]]:
        """Yield the keys and upload identifiers of objects that are sent in parts, and whose keys begin so."""
        marks: dict[str, str] = {}
        while True:
            answer = self._send("list_multipart_uploads", None, Prefix=self._place.folder + prefix, **marks)
            for item in answer.get("Uploads", ()):
                yield item["Key"].removeprefix(self._place.folder), item["UploadId"]
            if not answer.get("IsTruncated"):
                return
            marks = {"KeyMarker": answer["NextKeyMarker"]}
            if answer.get("NextUploadIdMarker"):  # some storages return only the key
                marks["UploadIdMarker"] = answer["NextUploadIdMarker"]

    def _new_client(self) -> Any:
        session = botocore.session.Session()
        addressing = "virtual" if self._place.virtual_hosts else "auto"
        config = botocore.config.Config(
            connect_timeout=CONNECT_WITHIN,
            read_timeout=ANSWER_WITHIN,
            retries={"mode": "standard", "total_max_attempts": ATTEMPTS},
            max_pool_connections=CONNECTIONS,
            s3={"addressing_style": addressing},
            # Storages that are compatible with S3 do not know the newer checksums, which botocore sends otherwise.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        )
        region = self._place.region or os.environ.get("AWS_REGION")  # of which botocore knows only the older name
        client = session.create_client("s3", region_name=region, endpoint_url=self._place.endpoint, config=config)
        if session.get_credentials() is None:
            raise NoCredentialsError
        return client

    def _read(self, **arguments: Any) -> tuple[bytes, str]:
        """Return what a request reads, and the entity tag of the object.

        Repeats the request if the connection breaks in the middle of the answer, which the client does not.
        """
        for attempt in range(1, ATTEMPTS + 1):
            answer = self._send("get_object", **arguments)
            try:
                return self._call(answer["Body"].read), answer["ETag"]
            except StoreUnavailable:
                if attempt == ATTEMPTS:
                    raise
        raise AssertionError("the last attempt raises")

    def _send(self, operation: str, missing: type[Exception] | None = Missing, **arguments: Any) -> Any:
        """Send a request. If the object or upload does not exist, raises `missing`; None: `StoreUnavailable`."""
        if "Key" in arguments:
            arguments["Key"] = self._place.folder + arguments["Key"]
        try:
            return self._call(getattr(self._client, operation), Bucket=self._place.bucket, **arguments)
        except ClientError as error:
            code = _code(error)
            if code in _NOT_AS_EXPECTED and ("IfMatch" in arguments or "IfNoneMatch" in arguments):
                raise NotAsExpected from None
            if code in _MISSING and missing is not None:
                raise missing from None
            raise self._failed(str(error), code) from None

    def _call(self, function: Callable[Arguments, T], *arguments: Arguments.args, **named: Arguments.kwargs) -> T:
        """Call the client. Raises `ClientError` if the storage answers with an error."""
        try:
            return function(*arguments, **named)
        except _CREDENTIALS as error:
            raise self._failed(str(error), "no credentials") from None
        except _NO_ANSWER as error:
            raise self._failed(str(error), "no answer") from None
        except BotoCoreError as error:
            raise self._failed(str(error)) from None

    def _failed(self, text: str, code: str | None = None) -> StoreUnavailable:
        return StoreUnavailable(f"the file store {self._place.name}: {text}", _reason(code))


def _code(error: ClientError) -> str:
    """Return the name of an error of the storage, or the status of its answer if that has no name."""
    return str(error.response["Error"].get("Code") or error.response["ResponseMetadata"]["HTTPStatusCode"])


def _reason(code: str | None) -> str:
    """Return the public reason of an error."""
    if code in ("no answer", "no credentials"):
        return code
    if code in _BUSY:
        return "overloaded"
    if code == "NoSuchBucket":
        return "the bucket is missing"
    if code in ("403", "AccessDenied", "ExpiredToken", "InvalidAccessKeyId", "SignatureDoesNotMatch"):
        return "access denied"
    return "storage error"


def _keep_credentials_out_of_logs() -> None:
    """Turn off the client's debug messages, which have session tokens, unless the operator has set their level."""
    logger = logging.getLogger("botocore")
    if logger.level == logging.NOTSET:
        logger.setLevel(logging.WARNING)
