"""The bundle of the page: what it is made of, how it is built, and a server that lacks it."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from jimsapi_playground.routes import FILES, PAGE, add_routes

from jimsapi.asgi import App, Router
from jimsapi.asgi.testing import TestClient

pytestmark = pytest.mark.anyio

PLUGIN = Path(__file__).resolve().parents[1]
MOST = 100_000


def app_with(folder: Path) -> App:
    router = Router()
    add_routes(router, local_only=False, folder=folder)
    app = App()
    app.include(router)
    return app


async def test_a_server_without_the_bundle_starts_and_its_page_says_what_to_do(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with TestClient(app_with(tmp_path)) as client:
        answer = await client.get("/")
    assert answer.status_code == 503
    assert "pip install --force-reinstall jimsapi-playground" in answer.text
    assert "<script" not in answer.text
    [record] = [record for record in caplog.records if record.name == "jimsapi.playground"]
    assert record.levelname == "WARNING"
    assert str(tmp_path) in record.getMessage()


def test_the_bundle_is_small(bundle: Path) -> None:
    assert sum((bundle / name).stat().st_size for name in (PAGE, *FILES)) < MOST


async def test_the_page_may_load_only_its_own_files(bundle: Path) -> None:
    async with TestClient(app_with(bundle)) as client:
        for path, content_type in (("/", "text/html"), ("/playground/app.js", "text/javascript")):
            answer = await client.get(path)
            policy = answer.headers["content-security-policy"].split("; ")
            assert answer.headers["content-type"].startswith(content_type)
            assert {"default-src 'none'", "script-src 'self'", "style-src 'self'", "base-uri 'none'"} <= {*policy}
            assert "unsafe" not in answer.headers["content-security-policy"]
            assert answer.headers["x-content-type-options"] == "nosniff"
    assert "http" not in (bundle / PAGE).read_text()


def copy_of_the_plugin(folder: Path) -> Path:
    """The sources, without what is built of them."""
    left_out = shutil.ignore_patterns("node_modules", "static", "tests", "build", "*.egg-info", "__pycache__")
    return Path(shutil.copytree(PLUGIN, folder / "source", ignore=left_out))


def build_wheel(source: Path, target: Path, **env: str) -> "subprocess.CompletedProcess[str]":
    """Build a wheel with the tools that are installed here."""
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "--no-build-isolation", "--no-deps"]
    return subprocess.run(
        [*command, "--wheel-dir", str(target), str(source)],
        env={**os.environ, **env}, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip


def test_the_wheel_has_the_bundle(tmp_path: Path, bundle: Path) -> None:
    built = build_wheel(copy_of_the_plugin(tmp_path), tmp_path)
    assert built.returncode == 0, built.stdout + built.stderr
    [wheel] = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        for name in (PAGE, *FILES, "preact-LICENSE.txt"):
            assert archive.read(f"jimsapi_playground/static/{name}") == (bundle / name).read_bytes()


def test_a_build_without_a_registry_says_what_to_do(tmp_path: Path) -> None:
    nowhere = {"npm_config_registry": "http://127.0.0.1:9/", "npm_config_cache": str(tmp_path / "cache")}
    built = build_wheel(copy_of_the_plugin(tmp_path), tmp_path, **nowhere, npm_config_fetch_retries="0")
    assert built.returncode != 0
    assert "It needs the npm registry: check the network" in built.stdout + built.stderr


def test_an_archive_with_the_bundle_is_built_without_a_registry(tmp_path: Path, bundle: Path) -> None:
    source = copy_of_the_plugin(tmp_path)
    shutil.copytree(bundle, source / "jimsapi_playground" / "static")
    nowhere = {"npm_config_registry": "http://127.0.0.1:9/", "npm_config_cache": str(tmp_path / "cache")}
    built = build_wheel(source, tmp_path, **nowhere)
    assert built.returncode == 0, built.stdout + built.stderr
