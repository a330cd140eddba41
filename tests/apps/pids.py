"""An app without chat that says which process answers."""

import asyncio
import os

from jimsapi.asgi import App, Request

app = App(title="pids")


@app.get("/pid", public=True)
async def pid(request: Request) -> dict[str, int]:
    """The process."""
    return {"pid": os.getpid()}


@app.get("/slow", public=True)
async def slow(request: Request) -> dict[str, int]:
    """The process, after a second."""
    await asyncio.sleep(1)
    return {"pid": os.getpid()}
