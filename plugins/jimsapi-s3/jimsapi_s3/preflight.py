"""Opens a bucket: finds out whether it can keep files before the server accepts any."""

from collections.abc import Callable
from typing import TypeVarTuple

from jimsapi.threads import StoreUnusable
from jimsapi_s3.bucket import Bucket, NotAsExpected
from jimsapi_s3.contact_files import KEY, ContactFiles

OTHER_TAG = '"00000000000000000000000000000000"'
"""An entity tag that no object has."""

Arguments = TypeVarTuple("Arguments")


def prepare(bucket: Bucket, files: ContactFiles) -> None:
    """Open the bucket and the files in it. Sends each kind of request that files need, and changes no file.

    Raises `StoreUnusable` if the storage cannot keep files apart, and `StoreUnavailable` if it refuses a request.
    """
    bucket.open()
    files.open()
    next(bucket.entries("files/", page=1), None)
    next(bucket.unfinished("files/"), None)
    bucket.delete(["no-such-file"])
    _require_conditions(bucket)


def keeps_deleted_files(bucket: Bucket) -> bool:
    """Return whether the bucket keeps old versions of objects. Call it after `prepare`."""
    return bucket.keeps_versions(KEY)


def _require_conditions(bucket: Bucket) -> None:
    """Raise `StoreUnusable` if the storage ignores the conditions of a request, so that uploads could collide.

    A storage that ignores them stores the same key anew, so nothing is lost.
    """
    key = bucket.get(KEY)
    if _is_refused(bucket.create, KEY, key) and _is_refused(bucket.replace, KEY, OTHER_TAG, key):
        return
    raise StoreUnusable(
        "cannot use --files-store: the storage ignores If-Match and If-None-Match of PUT, so files could be lost; use "
        "S3, or a storage or a version of it that supports conditional writes"
    )


def _is_refused(call: Callable[[*Arguments], object], *arguments: *Arguments) -> bool:
    try:
        call(*arguments)
    except NotAsExpected:
        return True
    return False
