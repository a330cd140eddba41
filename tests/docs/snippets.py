"""Code blocks of the documentation's pages, and their installation as real distributions."""

import configparser
import re
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_FILE_NAME = re.compile(r"# (\w+\.\w+)\n")


def blocks(page: str, language: str) -> list[str]:
    """The page's code blocks in one language, in order."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return [code for found, code in _BLOCK.findall(text) if found == language]


def modules(page: str) -> dict[str, str]:
    """The page's Python modules by file name, which is the first line of each; blocks without one are left out."""
    return {_file_name(code): code for code in blocks(page, "python") if _FILE_NAME.match(code)}


def install(folder: Path, module: str, code: str, entry_point: str | None = None) -> None:
    """Put a plugin's module into `folder`, with the metadata by which Python knows an installed distribution."""
    name = module.removesuffix(".py")
    (folder / module).write_text(code, encoding="utf-8")
    metadata = folder / f"{name}-1.0.dist-info"
    metadata.mkdir()
    distribution = name.replace("_", "-")
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n")
    point = entry_point or f"{name.removeprefix('jimsapi_')} = {name}"
    (metadata / "entry_points.txt").write_text(f"[jimsapi]\n{point}\n")


def entry_point(setup_cfg: str) -> str:
    """The line that a setup.cfg gives for the group `jimsapi`."""
    parser = configparser.ConfigParser()
    parser.read_string(setup_cfg)
    points: Mapping[str, str] = parser["options.entry_points"]
    return points["jimsapi"].strip()


def _file_name(code: str) -> str:
    found = _FILE_NAME.match(code)
    assert found is not None
    return found[1]
