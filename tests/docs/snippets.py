"""Code blocks of the documentation's pages, and their installation as real distributions."""

import re
import subprocess
import sys
import textwrap
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_FENCED = re.compile(r"^```.*?^```$", re.DOTALL | re.MULTILINE)
_INDENTED = re.compile(r"(?<=\n\n)((?:    .+\n|\n(?=    ))+)")
_FILE_NAME = re.compile(r"# (\w+\.\w+)\n")


def blocks(page: str, language: str) -> list[str]:
    """The page's code blocks in one language, in order."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return [code for found, code in _BLOCK.findall(text) if found == language]


def indented(page: str) -> list[str]:
    """The page's blocks that are only indented, in order: nearly all of them are commands."""
    text = _FENCED.sub("", (ROOT / page).read_text(encoding="utf-8"))
    return [textwrap.dedent(code).strip() for code in _INDENTED.findall(text)]


def modules(page: str) -> dict[str, str]:
    """The page's Python modules by file name, which is the first line of each; blocks without one are left out."""
    return {_file_name(code): code for code in blocks(page, "python") if _FILE_NAME.match(code)}


def install(folder: Path, module: str, code: str) -> None:
    """Put a plugin's module into `folder`, with the metadata by which Python knows an installed distribution."""
    name = module.removesuffix(".py")
    (folder / module).write_text(code, encoding="utf-8")
    metadata = folder / f"{name}-1.0.dist-info"
    metadata.mkdir()
    distribution = name.replace("_", "-")
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n")
    point = f"{name.removeprefix('jimsapi_')} = {name}"
    (metadata / "entry_points.txt").write_text(f"[jimsapi]\n{point}\n")


def pip_install(page: str, module: str, project: Path, target: Path) -> None:
    """Write the first plugin of a page as it stands there, and have pip install it into `target`."""
    project.mkdir()
    [build], [metadata] = blocks(page, "toml"), blocks(page, "ini")
    for name, text in (("pyproject.toml", build), ("setup.cfg", metadata), (module, modules(page)[module])):
        assert text.startswith(f"# {name}\n")
        (project / name).write_text(text, encoding="utf-8")
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--target", str(target)]
    subprocess.run([sys.executable, "-m", "pip", "install", *options, str(project)], check=True)


def _file_name(code: str) -> str:
    found = _FILE_NAME.match(code)
    assert found is not None
    return found[1]
