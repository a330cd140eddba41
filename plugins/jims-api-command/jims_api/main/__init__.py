"""The commands `python -m jims_api.main` and `jims-api` of jims-api, with their flags and variables. They run jimsapi.

`main` is a package, so that it shares no file with the distribution jims-api. If both distributions are installed, in
any order, Python finds this package before the other's `main.py`, and the command does not start. If this package
were a `main.py`, the distribution that was installed last would serve without a warning.

Both distributions have `jims_api/__init__.py`, without code. Without the one here, Python would prefer the other's
package if that is installed from a folder, as in a workspace. If pip removes the file together with jims-api, Python
still finds `main`.
"""

import importlib.metadata
import os
import sys
from collections.abc import Mapping, Sequence

SENTRY = "jimsapi-sentry"
SENTRY_FLAG, SENTRY_VARIABLE = "--enable-sentry", "JIMS_ENABLE_SENTRY"

_OFF = ("", "0", "false", "f", "no", "n", "off")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command with the options of `jimsapi`, and exit as `jimsapi` does. Exits with 1 if it must not start."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    refusal = reason_to_refuse(arguments, os.environ)
    if refusal is not None:
        sys.stderr.write(f"jims_api: {refusal}\n")
        sys.exit(1)

    from jimsapi.cli import main as jimsapi

    jimsapi(arguments)


def reason_to_refuse(arguments: Sequence[str], environ: Mapping[str, str]) -> str | None:
    """Return why the command must not start in this environment, and what to do about it; None if it may start."""
    if _is_installed("jims-api"):
        return (
            "the distribution jims-api is installed too, and has the same command; run: "
            "pip uninstall --yes jims-api && pip install --force-reinstall --no-deps jims-api-command"
        )
    source = SENTRY_FLAG if SENTRY_FLAG in arguments else SENTRY_VARIABLE
    enabled = SENTRY_FLAG in arguments or environ.get(SENTRY_VARIABLE, "").strip().lower() not in _OFF
    if enabled and not _is_installed(SENTRY):
        return f"{source} is set, but {SENTRY} is not installed: pip install {SENTRY}, or unset it"
    return None


def _is_installed(distribution: str) -> bool:
    try:
        importlib.metadata.distribution(distribution)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True
