"""The live view's page: a few files that ship with the package, served as they are.

No data is in them, so they need no token; they run no script that is not one of them, and ask no other server.
"""

from __future__ import annotations

import functools
import hashlib
from importlib import resources

from aiohttp import web

from extproc.admin.guard import PAGE_PATHS

_TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
_HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-cache",
}


def add_page(app: web.Application) -> None:
    for path in sorted(PAGE_PATHS):
        app.router.add_get(path, _file)


async def _file(request: web.Request) -> web.Response:
    name = request.path.removeprefix("/") or "index.html"
    body, tag = _content(name)
    headers = {**_HEADERS, "etag": tag}
    if request.headers.get("if-none-match") == tag:
        return web.Response(status=304, headers=headers)
    return web.Response(body=body, content_type=_TYPES[name.rpartition(".")[2]], charset="utf-8", headers=headers)


@functools.cache
def _content(name: str) -> tuple[bytes, str]:
    """`name` is one of `PAGE_PATHS`, never what a client made up."""
    body = resources.files("extproc.admin").joinpath("page", name).read_bytes()
    return body, f'"{hashlib.sha256(body).hexdigest()[:16]}"'
