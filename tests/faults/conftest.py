"""A disk for tests of broken stores."""

from pathlib import Path

import pytest

from tests.faults.disk_image import Disk


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    """The disk that holds the database."""
    (tmp_path / "disk").mkdir()
    disk = Disk(tmp_path / "disk", tmp_path)
    disk.begin()
    return disk
