"""An app without chat that says which process answers.

`PIDS_FOLDER` in the environment names a folder: a process that starts makes the file `begun` there, starts no further
while `held` exists, and cannot start while `broken` exists. Each request for `/slow` makes a file `slow-` there.
"""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import uuid4

from jimsapi.asgi import App, Request


@asynccontextmanager
async def lifespan(app: App) -> AsyncIterator[None]:
    if folder := os.environ.get("PIDS_FOLDER"):
        (Path(folder) / "begun").touch()
        while (Path(folder) / "held").exists():
            await asyncio.sleep(0.02)
        if (Path(folder) / "broken").exists():
            raise RuntimeError("this process cannot start")
    yield


app = App(title="pids", lifespan=lifespan)


@app.get("/pid", public=True)
async def pid(request: Request) -> dict[str, int]:
    """The process."""
    return {"pid": os.getpid()}


@app.get("/slow", public=True)
async def slow(request: Request) -> dict[str, int]:
    """The process, after a second, or after as many as the query says."""
    if folder := os.environ.get("PIDS_FOLDER"):
        (Path(folder) / f"slow-{uuid4()}").touch()
    await asyncio.sleep(float(request.query.get("seconds") or 1))
    return {"pid": os.getpid()}


@app.get("/cancel", public=True)
async def cancel(request: Request) -> dict[str, int]:
    """Cancel everything in the event loop, as no code should."""
    for task in asyncio.all_tasks():
        task.cancel()
    return {"pid": os.getpid()}
