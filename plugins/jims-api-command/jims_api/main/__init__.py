"""The command of jims-api, `python -m jims_api.main` and `jims-api`, with its flags and variables, served by jimsapi.

This is a package, so that it is in no file of the distribution jims-api. Where both are installed, in whatever order,
Python finds the package before the other's `main.py`, and the start is refused; else whichever was installed last would
serve, and nobody would be told.

`jims_api/__init__.py` is in both, and says nothing in either. Without ours, Python would prefer the other's package
where that is installed from a folder, as in a workspace. Where pip takes it away with the other, `main` is found still.
"""

import importlib.metadata
import os
import sys
from collections.abc import Mapping, Sequence

SENTRY = "jimsapi-sentry"
SENTRY_FLAG, SENTRY_VARIABLE = "--enable-sentry", "JIMS_ENABLE_SENTRY"

_OFF = ("", "0", "false", "f", "no", "n", "off")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command and exit as `jimsapi` does, whose options these are; 1 if it may not start here."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    refusal = reason_to_refuse(arguments, os.environ)
    if refusal is not None:
        sys.stderr.write(f"jims_api: {refusal}\n")
        sys.exit(1)

    from jimsapi.cli import main as jimsapi

    jimsapi(arguments)


def reason_to_refuse(arguments: Sequence[str], environ: Mapping[str, str]) -> str | None:
    """Why the command must not start in this environment, and what mends it; None if it may."""
    if _is_installed("jims-api"):
        return (
            "the distribution jims-api is installed too, and has this command as well; run: "
            "pip uninstall --yes jims-api && pip install --force-reinstall --no-deps jims-api-command"
        )
    wanted_by = SENTRY_FLAG if SENTRY_FLAG in arguments else SENTRY_VARIABLE
    wanted = SENTRY_FLAG in arguments or environ.get(SENTRY_VARIABLE, "").strip().lower() not in _OFF
    if wanted and not _is_installed(SENTRY):
        return f"{wanted_by} is set, but {SENTRY} is not installed: pip install {SENTRY}, or leave it out"
    return None


def _is_installed(distribution: str) -> bool:
    try:
        importlib.metadata.distribution(distribution)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True
