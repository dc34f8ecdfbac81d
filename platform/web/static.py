"""The browser's files: what the UI's build left in ui/dist."""

import asyncio
import html
from http import HTTPStatus
from pathlib import Path

import aiofiles
from aiohttp import web

from .auth import Verdict, challenge, wants_page
from .problems import RequestRejected

CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'self'",
        "script-src 'self'",
        # Lit and uPlot set styles on elements; a style cannot run anything.
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data: blob:",
        "connect-src 'self'",
        "worker-src 'self'",
        "object-src 'none'",
        "base-uri 'none'",
        "form-action 'self'",
        "frame-ancestors 'none'",
    )
)

_NOT_BUILT = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>Windvane: the browser interface is not built</title>
<h1>The browser interface is not built</h1>
<p>The server runs, and its API answers below <a href="/api/v1/status">/api/v1</a>; its description is
<a href="/openapi.json">/openapi.json</a>.</p>
<p>To build the interface: <code>make ui</code> in the source tree, then load this page again.</p>
</html>
"""

_NOT_FOUND = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Page not found: Windvane</title>
<style>
  :root {{ color-scheme: dark light }}
  body {{ margin: 18vh 24px; font: 14px/1.45 system-ui, sans-serif; text-align: center }}
  code {{ overflow-wrap: anywhere }}
</style>
<h1>Page not found</h1>
<p>There is no page at <code>{path}</code>.</p>
<p><a href="{root}">Open the dashboard</a></p>
</html>
"""

_BUILT_ONCE = "public, max-age=31536000, immutable"


class UiRoutes:
    """Everything but the API: a file of the build. Its page finds its way by the hash of the address."""

    def __init__(self, dist: Path) -> None:
        self._dist = dist.resolve()

    async def get(self, request: web.Request) -> web.StreamResponse:
        """A file, index.html for the root; else 404, for browsers as a page."""
        path = request.match_info["path"]
        found = await asyncio.to_thread(self._find, path)
        if found is None and wants_page(request):
            # Relative, since a reverse proxy may serve the dashboard below a path of its own.
            page = _NOT_FOUND.format(path=html.escape(request.path), root="../" * path.count("/") or "./")
            return web.Response(text=page, content_type="text/html", status=HTTPStatus.NOT_FOUND)
        if found is None:
            raise RequestRejected(
                HTTPStatus.NOT_FOUND,
                f"There is nothing at {request.path}. /openapi.json lists what there is.",
            )
        if found == self._dist:
            return web.Response(
                text=_NOT_BUILT, content_type="text/html", status=HTTPStatus.SERVICE_UNAVAILABLE
            )
        # The build puts a hash of the content into the names below assets/.
        cached = _BUILT_ONCE if found.is_relative_to(self._dist / "assets") else "no-cache"
        return web.FileResponse(found, headers={"Cache-Control": cached})

    async def get_unauthenticated(self, request: web.Request, verdict: Verdict) -> web.StreamResponse | None:
        """For unauthenticated clients: the interface's page, with status 401, and the files that it needs.

        They contain no data of the home, and the page asks for the token. None for everything else.
        """
        path = request.match_info.get("path")
        found = None if path is None else await asyncio.to_thread(self._find, path)
        if found is None or found == self._dist:
            return None
        if found.suffix != ".html":
            return await self.get(request) if verdict is Verdict.CREDENTIALS_MISSING else None
        if not wants_page(request):
            return None
        async with aiofiles.open(found, "rb") as file:
            page = await file.read()
        return web.Response(
            body=page,
            status=HTTPStatus.UNAUTHORIZED,
            content_type="text/html",
            charset="utf-8",
            headers={"WWW-Authenticate": challenge(request), "Cache-Control": "no-store"},
        )

    def _find(self, path: str) -> Path | None:
        """The file to send; the folder of the build itself if there is no build; None for nothing."""
        if not (self._dist / "index.html").is_file():
            return self._dist if "." not in path.rpartition("/")[2] else None
        if path == "":
            return self._dist / "index.html"
        try:
            file = (self._dist / path).resolve()
            if file.is_relative_to(self._dist) and file.is_file():
                return file
        except (ValueError, OSError):  # a NUL, a name too long
            return None
        return None


async def set_security_headers(_request: web.Request, response: web.StreamResponse) -> None:
    """To be a signal on_response_prepare: sets the security headers of every response."""
    headers = response.headers
    headers.setdefault("X-Content-Type-Options", "nosniff")
    headers.setdefault("Content-Security-Policy", CONTENT_SECURITY_POLICY)
    headers.setdefault("Referrer-Policy", "no-referrer")
    headers.setdefault("Cross-Origin-Resource-Policy", "same-origin")
    headers.setdefault("X-Frame-Options", "DENY")
