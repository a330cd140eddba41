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
    """The process, after a second, or after as many as the query says."""
    await asyncio.sleep(float(request.query.get("seconds") or 1))
    return {"pid": os.getpid()}


@app.get("/cancel", public=True)
async def cancel(request: Request) -> dict[str, int]:
    """Cancel everything in the event loop, as no code should."""
    for task in asyncio.all_tasks():
        task.cancel()
    return {"pid": os.getpid()}
