"""A plugin that serves the pages of this folder, to whoever asks."""

from pathlib import Path

from jimsapi import Request, Response, Router, hookimpl

FOLDER = Path(__file__).resolve().parent
TYPES = {".html": "text/html; charset=utf-8", ".mjs": "text/javascript; charset=utf-8"}


@hookimpl
def jimsapi_routes(router: Router) -> None:
    @router.get("/pages/{name}", public=True)
    async def page(request: Request) -> Response:
        file = FOLDER / request.path_params["name"]
        return Response(file.read_bytes(), content_type=TYPES[file.suffix])
