"""Plugins as real distributions: wheels that pip installs, and folders that Python's metadata finds."""

import subprocess
import sys
import textwrap
import zipfile
from base64 import urlsafe_b64encode
from hashlib import sha256
from pathlib import Path


def wheel(folder: Path, distribution: str, version: str, files: dict[str, str], points: str) -> Path:
    """Write a wheel by hand (PEP 427), so that no build backend is needed."""
    name = distribution.replace("-", "_")
    metadata = f"{name}-{version}.dist-info"
    contents = files | {
        f"{metadata}/METADATA": f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n",
        f"{metadata}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{metadata}/entry_points.txt": f"[jimsapi]\n{points}\n",
    }
    record = "".join(f"{path},sha256={_digest(text)},{len(text.encode())}\n" for path, text in contents.items())
    contents[f"{metadata}/RECORD"] = f"{record}{metadata}/RECORD,,\n"
    built = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(built, "w") as archive:
        for path, text in contents.items():
            archive.writestr(path, text)
    return built


def pip_install(target: Path, *wheels: Path) -> None:
    """Install wheels into a folder with pip; nothing is downloaded."""
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*pip, "--target", str(target), *map(str, wheels)], check=True, timeout=120)


def install(folder: Path, distribution: str, code: str, *, point: str | None = None, version: str = "1.0") -> None:
    """Put a plugin of one module into `folder`, as an installed distribution looks.

    The module is the distribution's name with underscores, and so is the entry point unless `point` is given.
    """
    module = distribution.replace("-", "_")
    code = textwrap.dedent(code)
    (folder / f"{module}.py").write_text(code, encoding="utf-8")
    metadata = folder / f"{module}-{version}.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n")
    (metadata / "entry_points.txt").write_text(f"[jimsapi]\n{point or f'{module} = {module}'}\n")


def _digest(text: str) -> str:
    return urlsafe_b64encode(sha256(text.encode()).digest()).rstrip(b"=").decode()
