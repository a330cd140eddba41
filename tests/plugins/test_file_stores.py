"""A plugin asks for the file store of a URL, and another plugin builds it."""

from pathlib import Path

import pytest

from jimsapi.api.app import configure
from jimsapi.plugins import PluginError, Settings, StartError, build_file_store, redact
from tests.plugins.distributions import install

CRATE = """
    from jimsapi import hookimpl

    class Crate:
        name = "NAME"
        async def put(self, new, content, quota): ...
        async def find(self, file_id, acting_for): ...
        async def read(self, file, begin, end): ...
        async def files(self, contact_id, limit, after): ...
        async def delete(self, file): ...
        async def delete_contact(self, contact_id): ...

    @hookimpl
    def jimsapi_file_store(url):
        if not url.startswith("crate:"):
            return None
        if url == "crate:":
            raise ValueError("name the crate,\\n for example crate:red")
        return Crate()
"""


def settings() -> Settings:
    return configure([], {}).settings


def test_the_first_plugin_that_knows_the_url_builds_the_file_store(site: Path) -> None:
    install(site, "acme-other", CRATE.replace("crate:", "other:").replace("NAME", "other"))
    install(site, "acme-second", CRATE.replace("NAME", "second"))
    install(site, "acme-first", CRATE.replace("NAME", "first"))
    assert build_file_store("crate:red", "--files-store", settings()).name == "first"
    assert build_file_store("other:red", "--files-store", settings()).name == "other"


def test_a_url_that_no_plugin_knows_is_refused_without_its_password(site: Path) -> None:
    install(site, "acme-crate", CRATE.replace("NAME", "crate"))
    url, resolved = "bucket://ann:hunter2hunter2@host/x?secret=1", settings()
    with pytest.raises(StartError) as raised:
        build_file_store(url, "--attic", resolved)
    assert str(raised.value) == (
        "--attic bucket://***@host/x?***: no installed plugin keeps files there; "
        "jimsapi-files supports file:///folder, and jimsapi-s3 s3://bucket/folder"
    )
    assert "hunter2" not in redact("hunter2hunter2")
    assert type(raised.value) is StartError


def test_the_operator_reads_why_a_url_is_faulty(site: Path) -> None:
    install(site, "acme-crate", CRATE.replace("NAME", "crate"))
    with pytest.raises(StartError, match=r"^--files-store crate:: name the crate, for example crate:red$"):
        build_file_store("crate:", "--files-store", settings())


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (("async def put", "async def store"), "has no put\\(\\)"),
        (("async def find", "def find"), "has a find\\(\\) that is not async"),
        (('name = "NAME"', 'name = ""'), "has no name"),
        (("return Crate()", "return Crate"), "is a class: return an instance"),
        (("return Crate()", "1 / 0"), "jimsapi_file_store failed: ZeroDivisionError"),
    ],
)
def test_a_file_store_that_could_not_work_is_refused(site: Path, change: tuple[str, str], fault: str) -> None:
    install(site, "acme-crate", CRATE.replace(*change))
    with pytest.raises(PluginError, match=f"plugin acme_crate .*{fault}"):
        build_file_store("crate:red", "--files-store", settings())


def test_settings_without_plugins_know_no_file_store() -> None:
    with pytest.raises(StartError, match="no installed plugin keeps files there"):
        build_file_store("crate:red", "--files-store", Settings([], {}, {}))
