"""Writes what is generated of the documentation: `python -m docs.generate`.

docs/reference.md is the page of every option, from the option classes; docs/who-may-enter.md has a table that tests
hold; docs/house.svg is a picture of the packages; docs/names.md is the page of every public name.
"""

import runpy
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from docs.house import PICTURE, picture
from docs.names import PAGE, page
from jimsapi.cli.options import all_options
from jimsapi.plugins.options import Options, OptionSpec, specs
from jimsapi.plugins.secrets import Secret

REFERENCE = Path(__file__).with_name("reference.md")
WHO_MAY_ENTER = Path(__file__).with_name("who-may-enter.md")
COMBINATIONS = Path(__file__).resolve().parents[1] / "plugins" / "tests" / "combinations.py"
TABLE_BEGINS = "<!-- the table: written by docs/generate.py -->\n"
TABLE_ENDS = "<!-- the end of the table -->\n"

HEAD = """\
# Options

This page lists every option of the server. `docs/generate.py` writes it from the option classes. To change the page,
change those classes, then run `make docs`.

An option is a flag of `jimsapi`, an environment variable, and a keyword of `create_api` with the name of the flag
(`--queue-timeout`, `JIMS_QUEUE_TIMEOUT`, `queue_timeout=`). Every variable has a second form that ends in `_FILE` and
names a file with the value (`JIMS_STORE_FILE=/run/secrets/store`). jimsapi uses the first of these that is given: the
flag or keyword, the variable, the file, the configuration file, the default. An empty value counts as not given.

**Configuration file.** `--config FILE` names a TOML file with options. The command reads `jimsapi.toml` if that is in
the current folder and no other file is named; `create_api` reads only a file that is named. A key is the name of an
option, and a table adds its name to the front, so `url` in `[authentik]` is `--authentik-url`. An option that repeats
is an array. The key of an option with `_file` at its end names a file with the value; a secret has only this form. A
key that is not an option stops the start, as an unknown flag does. `jimsapi config` prints all options that are in
force, and where each value comes from.

**Files.** jimsapi removes the line breaks at the end of a file from the value. A missing or empty file stops the
start. If the option does not repeat, a second line (a comment, too) or a control character in the file also stops the
start. If a variable and its `_FILE` form are both set, jimsapi does not read the file, and the start logs a warning.

**Options that repeat.** Each flag adds a value, the variable holds one value, and the file has one value a line (`#`
begins a comment). A secret that repeats has the values of all its sources together: flags or keyword, variable, and
file.

**Misspelt variables.** jimsapi warns of a variable that begins with `JIMS_` and is spelt nearly like one of these,
with or without `_FILE`. It ignores other unknown variables, because other JIMS programs use the prefix too.

**Kubernetes.** Kubernetes sets `JIMS_PORT=tcp://10.0.0.1:8080` in every pod beside a service named `jims`, and
`JIMS_METRICS_PORT` for one named `jims-metrics`. jimsapi does not read such a value, and warns of it unless the flag
is given. Set `enableServiceLinks: false` in the pod's specification to stop Kubernetes from setting it.

**Mounted apps and plugins.** Only the command has the options under Server and Log. `create_api` opens no metrics
port unless `metrics_port` is passed. Plugins add their own options; `jimsapi --help` shows all that are installed.

**Apps of the framework.** A `jimsapi.asgi.App` that `--app` names has these options: `--app`, `--drain-time`,
`--ssl-ca-certs`, and those under Server, Log and Plugin. Any other option stops its start. `jimsapi --help` lists both
groups.
"""

TYPES = {str: "text", int: "whole number", float: "number", bool: "true or false", Path: "path", Secret: "secret"}

COLUMNS = """\
| Flag | Variable | Value | Default | What it does |
|---|---|---|---|---|
"""


def reference() -> str:
    """The page's text."""
    return HEAD + "".join(_section(item.options) for item in all_options())


def _section(cls: type[Options]) -> str:
    title = cls.__name__.removesuffix("Options")
    about = " ".join((cls.__doc__ or "").split())
    rows = "".join(_row(spec) for spec in specs(cls))
    return f"\n## {title}\n\n{about}\n\n{COLUMNS}{rows}"


def _row(spec: OptionSpec) -> str:
    return _cells([f"`{spec.flag}`", f"`{spec.variable}`", _value(spec), _default(spec), spec.help])


def _cells(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"


def _value(spec: OptionSpec) -> str:
    text = " or ".join(f"`{choice}`" for choice in spec.choices) or TYPES[spec.type]
    if spec.minimum is not None and spec.maximum is not None:
        text += f", {_number(spec.minimum)} to {_number(spec.maximum)}"
    elif spec.minimum is not None:
        text += f", at least {_number(spec.minimum)}"
    elif spec.maximum is not None:
        text += f", at most {_number(spec.maximum)}"
    return f"{text}; repeats" if spec.repeats else text


def _default(spec: OptionSpec) -> str:
    if spec.required:
        return "must be given"
    if spec.default is None or spec.default in ((), ""):
        return "none"
    return f"`{_plain(spec.default)}`"


def _plain(default: Any) -> str:
    if isinstance(default, bool):
        return str(default).lower()
    if isinstance(default, int | float):
        return _number(default)
    return ", ".join(map(str, default)) if isinstance(default, tuple) else str(default)


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else str(value)


def who_may_enter() -> str:
    """The page on auth, with the table as the tests hold it."""
    before, begins, rest = WHO_MAY_ENTER.read_text(encoding="utf-8").partition(TABLE_BEGINS)
    _, ends, after = rest.partition(TABLE_ENDS)
    table: str = runpy.run_path(str(COMBINATIONS))["markdown"]()
    return f"{before}{begins}\n{table}\n{ends}{after}"


if __name__ == "__main__":
    REFERENCE.write_text(reference(), encoding="utf-8")
    WHO_MAY_ENTER.write_text(who_may_enter(), encoding="utf-8")
    PICTURE.write_text(picture(), encoding="utf-8")
    PAGE.write_text(page(), encoding="utf-8")
