"""Pages of another origin in Chromium: they upload files, and read them with the headers that they need."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from filing import PATH

from tests.clients.chromium import Chromium
from tests.plugins.distributions import install
from tests.serving import Served

KEY = "browser-key"
SCRIPT = """
(async () => {
  const authorization = "Bearer KEY", url = "URL/api/v1/files";
  const sent = await fetch(`${url}?contact_id=ann&name=${encodeURIComponent("Zoë.txt")}`, {
    method: "POST", body: "0123456789", headers: {authorization, "content-type": "text/plain"},
  });
  const {file_id} = await sent.json();
  const read = async headers => {
    const answer = await fetch(`${url}/${file_id}`, {headers: {authorization, ...headers}});
    const found = Object.fromEntries(NAMES.map(name => [name, answer.headers.get(name)]));
    return [answer.status, await answer.text(), found];
  };
  const whole = await read({}), tag = whole[2].etag;
  return [file_id, whole, await read({range: "bytes=2-4", "if-range": tag})];
})().catch(error => error.name)
"""
NAMES = ("accept-ranges", "content-disposition", "content-range", "etag")


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    with Chromium(tmp_path_factory.mktemp("chromium")) as browser:
        yield browser


def test_a_page_of_another_origin_that_is_allowed_reads_the_name_and_the_ranges_of_files(
    browser: Chromium, tmp_path: Path
) -> None:
    install(tmp_path, "jimsapi-pages", "", point="pages = tests.clients.pages")
    with Served(folder=tmp_path) as shop:
        options = ("--files-store", f"file://{tmp_path}/files", "--api-key", KEY)
        with Served(*options, "--cors-origin", shop.url) as api:
            script = SCRIPT.replace("KEY", KEY).replace("URL", api.url).replace("NAMES", json.dumps(NAMES))
            file_id, whole, part = browser.evaluate(f"{shop.url}/pages/fetch.html", script)
            with api.client() as client:
                headers = {"authorization": f"Bearer {KEY}"}
                assert client.get(f"{PATH}/{file_id}", headers=headers).content == b"0123456789"
    status, text, found = whole
    assert (status, text) == (200, "0123456789")
    assert found["accept-ranges"] == "bytes"
    assert "Zo%C3%AB.txt" in found["content-disposition"]
    status, text, found = part
    assert (status, text, found["content-range"]) == (206, "234", "bytes 2-4/10")
