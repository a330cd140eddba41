"""Python environments for the systems that are compared, made once and kept in `.benchmarks/` at the root."""

import os
import subprocess

from benchmarks.auth import of_tests
from benchmarks.serving import ROOT

FOLDER = ROOT / ".benchmarks"
JIMS_API = ("jims-api==0.6.2", "asyncpg")
JIMSAPI = ("--editable", ".", "--editable", "plugins/jimsapi-postgres", "--editable", "plugins/jimsapi-jims")


def python_with(name: str, *requirements: str) -> str:
    """The path of a Python that has `requirements`, as pip takes them at the root. `name` is the environment's folder.

    Raises `SystemExit` if there is no Python that jims-core runs on, and `CalledProcessError` if pip fails.
    """
    folder = FOLDER / name
    python, installed = folder / "bin" / "python", folder / "installed"
    wanted = "\n".join(requirements)
    if not installed.exists() or installed.read_text() != wanted:
        try:
            base = of_tests("jimsapi-jims", "find_python").find_python(os.environ)
        except LookupError as error:
            raise SystemExit(str(error)) from None
        print(f"making {folder}", flush=True)
        FOLDER.mkdir(exist_ok=True)
        (FOLDER / ".gitignore").write_text("*\n")
        subprocess.run([base, "-m", "venv", "--clear", str(folder)], check=True)
        pip = [str(python), "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
        subprocess.run([*pip, *requirements], cwd=ROOT, check=True)
        installed.write_text(wanted)
    return str(python)
