"""Where the files are: a bucket, a folder in it, and the storage that has the bucket."""

import re
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from jimsapi_s3 import S3Options

_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,62}")
_NAME = re.compile(r"[A-Za-z0-9!_.*'() -]+")
_LONGEST_FOLDER = 500
"""Characters. S3 allows 1,024 bytes for the whole key of an object."""


class Place(NamedTuple):
    """A bucket, and the beginning of the keys of its objects: empty, or a folder with `/` at its end.

    `endpoint` is the URL of the storage, None for that of AWS; `region` is None if the environment says it.
    `virtual_hosts` is whether the bucket is a part of the host name also with an `endpoint`.
    """

    bucket: str
    folder: str
    endpoint: str | None
    region: str | None
    virtual_hosts: bool

    @property
    def name(self) -> str:
        """The place as a URL, for logs."""
        return f"s3://{self.bucket}/{self.folder}"


def place_of(url: str, options: S3Options) -> Place:
    """Return the place that a URL `s3://bucket/folder` and the options name. Raises `ValueError` if they are faulty."""
    bucket, _, folder = url.removeprefix("s3:").removeprefix("//").partition("/")
    folder = unquote(folder).strip("/")
    if not url.startswith("s3://") or not _BUCKET.fullmatch(bucket):
        raise ValueError(
            "give a bucket, and perhaps a folder in it, for example s3://bucket/folder; AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY, or a profile or role, have the credentials, and --s3-endpoint has the host"
        )
    if len(folder) > _LONGEST_FOLDER or (folder and not all(map(_is_name, folder.split("/")))):
        raise ValueError(
            f"the folder may have letters, digits, spaces and !_.*'()- between its /, and {_LONGEST_FOLDER} characters"
        )
    return Place(
        bucket, f"{folder}/" if folder else "", _endpoint(options.endpoint), options.region, options.virtual_hosts
    )


def _is_name(part: str) -> bool:
    """Return whether a part of a folder's name is one that all storages and tools accept."""
    return _NAME.fullmatch(part) is not None and part not in (".", "..")


def _endpoint(text: str | None) -> str | None:
    """Return the URL of a storage. Raises `ValueError` if it is faulty, without its password."""
    if text is None:
        return None
    try:
        parts = urlsplit(text)
        faulty = parts.scheme not in ("http", "https") or not parts.hostname or parts.port == 0
    except ValueError:
        faulty = True
    if faulty or "@" in parts.netloc or parts.query or parts.fragment:
        raise ValueError(
            "--s3-endpoint has to be the URL of a host, such as https://minio.example:9000, without a user and without "
            "a query; the credentials come from AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or from a profile"
        )
    return text
