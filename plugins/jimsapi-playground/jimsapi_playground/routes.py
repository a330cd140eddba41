"""The routes of the page: the page itself, and the files that it loads."""

import html
import logging
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path

from jimsapi.asgi import HTTPError, Request, Response, Router
from jimsapi_playground.local import is_local

logger = logging.getLogger("jimsapi.playground")

STATIC = Path(__file__).with_name("static")
PAGE = "index.html"
FILES = {
    "app.js": "text/javascript; charset=utf-8",
    "app.css": "text/css; charset=utf-8",
    "icon.svg": "image/svg+xml",
}
"""The files of the bundle beside the page, and their types. Each has a route below /playground."""

ROOT_MARK = "{{root}}"
"""Stands in the page for the path below which a proxy shows the API."""

HEADERS = {
    "cache-control": "no-cache",
    # The page loads its own files and calls its own server, and nothing else. No script can turn text into HTML.
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
    ),
    "referrer-policy": "same-origin",
    "x-content-type-options": "nosniff",
}
HTML = "text/html; charset=utf-8"

MISSING = (
    "The page of the playground is not built: files are missing in {folder}. Install it again: pip install "
    "--force-reinstall jimsapi-playground, or in the folder of its source: pip install --editable ."
)


def add_routes(router: Router, *, local_only: bool, folder: Path = STATIC) -> None:
    """Add the routes of the page. `local_only`: requests of other machines than this one get 404.

    If the bundle is missing, the page says so, and the start logs a warning.
    """
    bundle = read_bundle(folder)
    if bundle is None:
        missing = MISSING.format(folder=folder)
        logger.warning("%s", missing)
        text = f"<!doctype html><html lang=en><title>Playground</title><h1>Playground</h1><p>{html.escape(missing)}</p>"
        _add(router, "/", "page", partial(_same, Response(text, 503, HEADERS, HTML)), local_only)
        return
    page = bundle.pop(PAGE).decode()
    _add(router, "/", "page", cache(partial(render, page)), local_only)
    for name, content in bundle.items():
        file = Response(content, 200, HEADERS, FILES[name])
        _add(router, f"/playground/{name}", name, partial(_same, file), local_only)


def _add(router: Router, path: str, name: str, answer: Callable[[str], Response], local_only: bool) -> None:
    @router.get(path, public=True, name=f"playground {name}", summary=f"The playground: {name}", tags=("playground",))
    async def show(request: Request) -> Response:
        if local_only and not is_local(request):
            raise HTTPError(404)
        return answer(request.scope.get("root_path", "").rstrip("/"))


def _same(response: Response, root: str) -> Response:
    """Return the response, which is the same below every path."""
    return response


def read_bundle(folder: Path) -> dict[str, bytes] | None:
    """Return the files of the bundle by name; None if one is missing."""
    try:
        return {name: (folder / name).read_bytes() for name in (PAGE, *FILES)}
    except FileNotFoundError:
        return None


def render(page: str, root: str) -> Response:
    """Return the page for a server that is shown below the path `root`."""
    return Response(page.replace(ROOT_MARK, html.escape(root)), 200, HEADERS, HTML)
