"""A file store in S3, or in a storage that is compatible with it: `--files-store s3://bucket/folder`.

This module has the options and the hook. The hook imports the rest of the package only for a URL with its scheme.
"""

from jimsapi import Options, hookimpl, option
from jimsapi.plugins import FileStore, Settings


class S3Options(Options, prefix="s3"):
    """Options of the file store s3://bucket/folder. The credentials are those of the AWS command line."""

    endpoint: str | None = option(
        help="URL of a storage that is compatible with S3, such as https://minio.example. Without it: that of AWS."
    )
    region: str | None = option(
        help="Region of the bucket, such as eu-central-1. Without it: AWS_REGION or the AWS profile."
    )
    virtual_hosts: bool = option(
        False, help="Put the bucket into the host name with --s3-endpoint too, as some storages demand."
    )


@hookimpl
def jimsapi_options() -> type[Options]:
    return S3Options


@hookimpl
def jimsapi_file_store(url: str, settings: Settings) -> FileStore | None:
    if not url.startswith("s3:"):
        return None
    from jimsapi_s3.place import place_of
    from jimsapi_s3.store import S3Store

    return S3Store(place_of(url, settings.get(S3Options)))
