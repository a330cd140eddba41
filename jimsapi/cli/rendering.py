"""What `jimsapi new` and `jimsapi plugin new` share: the checks of a name, and the folder that templates are copied to.

The path of a template is its path in the new folder, with two exceptions: `package` becomes the module's name, and
`dot.` becomes `.`, because hidden files are easily missing from a wheel.
"""

import keyword
import re
import shutil
import sys
from collections.abc import Callable, Collection, Mapping
from importlib.metadata import packages_distributions
from pathlib import Path
from string import Template

from jimsapi.plugins.errors import StartError

LONGEST_NAME = 40
"""Characters. With a longer name, lines of the generated code would be too long for the linter."""

TEMPLATES = Path(__file__).with_name("templates")

# PEP 508.
_NAME = re.compile(r"[A-Z0-9]([A-Z0-9._-]*[A-Z0-9])?", re.IGNORECASE | re.ASCII)


def canonical_name(name: str, longest: int = LONGEST_NAME) -> str:
    """Return a name in lower case, with `-` between its parts. Raises `StartError` if it is invalid or too long."""
    if not _NAME.fullmatch(name):
        raise StartError(
            f"{name!r} is not a valid distribution name: use letters, digits, and - _ . between them (PEP 508)"
        )
    if len(name) > longest:
        raise StartError(f"{name} is longer than {longest} characters: choose a shorter name")
    return re.sub(r"[-_.]+", "-", name).lower()


def is_taken(module: str, reserved: Collection[str]) -> bool:
    """Return whether a module cannot have this name: it is reserved, a keyword, or Python or a distribution has it."""
    taken = keyword.iskeyword(module) or module in sys.stdlib_module_names or module in reserved
    return taken or module in packages_distributions()


def write_folder(name: str, write: Callable[[Path], None]) -> None:
    """Create a folder here and call `write` with it. Raises `StartError` if something is there already.

    An empty folder may be there. If a file cannot be written, the folder is removed.
    """
    folder = Path.cwd() / name
    try:
        folder.mkdir(exist_ok=True)
        if any(folder.iterdir()):
            raise FileExistsError
    except FileExistsError:
        raise StartError(f"{name} already exists here: choose another name, or work in another folder") from None
    except OSError as error:
        raise StartError(f"{name} cannot be created here: {error.strerror}") from None
    try:
        write(folder)
    except OSError as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise StartError(f"{name} cannot be written: {error.strerror}") from None


def write_templates(
    folder: Path, source: str, words: Mapping[str, str], *, left_out: str = "", test_module: str | None = None
) -> None:
    """Write the files of a folder of templates, without the file `left_out`. Raises `OSError`.

    `words` are the values of the placeholders. `test_module` is another name for its test module.
    """
    root = TEMPLATES / source
    package = words["module"].replace(".", "/")
    for template in sorted(root.rglob("*.txt")):
        relative = template.relative_to(root).with_suffix("")
        if relative.name == left_out:
            continue
        if test_module is not None and relative.name.startswith("test_"):
            relative = relative.with_name(test_module)
        parts = (re.sub(r"^dot\.", ".", part.replace("package", package)) for part in relative.parts)
        path = folder.joinpath(*parts)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(render(template, words), encoding="utf-8")


def render(template: Path, words: Mapping[str, str]) -> str:
    """Return the text of a template with the values of its placeholders."""
    return Template(template.read_text(encoding="utf-8")).substitute(words)
