"""The contract that file stores keep, against a real storage."""

from collections.abc import Mapping
from typing import Any

import pytest
from seaweed import Seaweed

from jimsapi.testing import FileStoreContract


class TestS3Store(FileStoreContract):
    distribution = "jimsapi-s3"
    url = ""

    @pytest.fixture(autouse=True)
    def place(self, storage: Seaweed, bucket: str) -> None:
        self.url = f"s3://{bucket}/of jimsapi"
        self._endpoint = storage.url

    @property
    def settings(self) -> Mapping[str, Any]:
        return {"s3_endpoint": self._endpoint}
