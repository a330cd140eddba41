"""The contracts that file stores, wrappers of the store of threads, and metrics keep."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from filing import PATH

from jimsapi.asgi.testing import TestClient
from jimsapi.testing import FileStoreContract, MetricsContract, StoreWrapperContract


class Configured:
    """The files are in a folder of the test's own."""

    distribution = "jimsapi-files"

    @pytest.fixture(autouse=True)
    def place(self, tmp_path: Path) -> None:
        self.url = f"file://{tmp_path}/files"

    @property
    def settings(self) -> Mapping[str, Any]:
        return {"files_store": self.url}


class TestFolderStore(Configured, FileStoreContract):
    url = ""


class TestDeletesFiles(Configured, StoreWrapperContract):
    pass


class TestMetrics(Configured, MetricsContract):
    async def test_stored_files_are_counted(self) -> None:
        api = self.api()
        async with TestClient(api) as client:
            for content in (b"x" * 10, b"y" * 5):
                assert (await client.post(PATH, params={"contact_id": "ann"}, content=content)).status_code == 201
            assert (await client.post(PATH, content=b"of nobody")).status_code == 422
            lines = api.metrics().splitlines()
        assert "files_received_total 2.0" in lines
        assert "files_received_bytes_total 15.0" in lines
