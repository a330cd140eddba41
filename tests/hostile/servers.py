"""The API as it is attacked: by the command, and under uvicorn with each of its own protocols."""

import sys

from tests.hostile.api_requests import KEY
from tests.serving import STEERED, Served

OURS = "jimsapi"
PROTOCOLS = (OURS, "h11", "httptools")


def serve(http: str, store: str) -> Served:
    """A server that is not entered yet, with `http` as its protocol: the command's own, or one of uvicorn's."""
    if http == OURS:
        return Served("--store", store, "--api-key", KEY)
    settings = {"JIMS_APP": STEERED, "JIMS_STORE": store, "JIMS_API_KEY": KEY, "JIMS_METRICS_PORT": "0"}
    served = Served(env=settings)
    served.command = [sys.executable, "-m", "uvicorn", "--factory", "jimsapi:create_api", "--http", http, "--port", "0"]
    return served
