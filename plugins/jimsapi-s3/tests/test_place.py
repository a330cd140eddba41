"""The URL and the options of a place for files."""

import subprocess
import sys
from pathlib import Path

import pytest
from jimsapi_s3 import S3Options
from jimsapi_s3.place import Place, place_of


def options(**given: object) -> S3Options:
    return S3Options(**{"endpoint": None, "region": None, "virtual_hosts": False, **given})


@pytest.mark.parametrize(
    ("url", "bucket", "folder"),
    [
        ("s3://files", "files", ""),
        ("s3://files/", "files", ""),
        ("s3://files/of/jims/", "files", "of/jims/"),
        ("s3://my.files/of%20jims", "my.files", "of jims/"),
    ],
)
def test_a_url_names_a_bucket_and_a_folder(url: str, bucket: str, folder: str) -> None:
    assert place_of(url, options(region="eu-central-1")) == Place(bucket, folder, None, "eu-central-1", False)


@pytest.mark.parametrize(
    "url",
    [
        "s3:",
        "s3:files",
        "s3://",
        "s3:///x",
        "s3://key:hunter2hunter2@files",
        "s3://f/a//b",
        "s3://f/../x",
        "s3://f/a?b=c",
    ],
)
def test_a_url_without_a_bucket_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"s3://bucket/folder|the folder may have") as raised:
        place_of(url, options())
    assert "hunter2" not in str(raised.value)


@pytest.mark.parametrize(
    "endpoint",
    [
        "minio",
        "minio:9000",
        "ftp://minio",
        "https://key:hunter2hunter2@minio",
        "https://",
        "https://minio:x",
        "https://m/?a",
    ],
)
def test_an_endpoint_that_is_not_a_host_is_refused_without_its_password(endpoint: str) -> None:
    with pytest.raises(ValueError, match="--s3-endpoint has to be the URL of a host") as raised:
        place_of("s3://files", options(endpoint=endpoint))
    assert "hunter2" not in str(raised.value)


def test_a_server_whose_files_are_elsewhere_does_not_import_the_client(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from jimsapi.api.app import configure\n"
        "from jimsapi.plugins import build_file_store\n"
        f"build_file_store('file://{tmp_path}/files', '--files-store', configure([], {{}}).settings)\n"
        "print([name for name in sys.modules if name.startswith(('botocore', 'jimsapi_s3'))])\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert ran.stdout == "['jimsapi_s3']\n", ran.stderr
