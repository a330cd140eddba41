"""The key of a command that calls a server."""

import os
from pathlib import Path

from jimsapi.plugins.errors import StartError
from jimsapi.plugins.secrets import secret_lines, secret_text


def client_key(given: str | None, file: str | None) -> str | None:
    """Return the API key, from the first that is set: the argument, the file, JIMS_API_KEY, JIMS_API_KEY_FILE."""
    if given:
        return given
    variable = os.environ.get("JIMS_API_KEY", "").strip()
    path = file or (not variable and os.environ.get("JIMS_API_KEY_FILE"))
    if not path:
        return variable or None
    try:
        keys = secret_lines(secret_text(Path(path).read_bytes()))
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        where = "--api-key-file or JIMS_API_KEY_FILE"
        raise StartError(f"cannot read the API key file {path}: {reason}; check {where}") from None
    if not keys:
        raise StartError(f"there is no key in {path}: put it on a line of its own")
    return keys[0]
