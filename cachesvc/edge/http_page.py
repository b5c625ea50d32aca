"""The status page at `/`: plain files of `page/`, put together once into a single answer.

It asks nobody but this daemon, and the browser is told so: scripts and styles run by
their hashes alone, requests go to this origin alone.
"""

from __future__ import annotations

import gzip
from base64 import b64encode
from hashlib import sha256
from importlib import resources

from aiohttp import web

from cachesvc.core.access import Action, Principal
from cachesvc.edge.http_routes import Route

# One module scope for all, so a file sees what the ones before it declare.
SCRIPTS = (
    "dom.js",
    "units.js",
    "samples.js",
    "chart.js",
    "overview.js",
    "tiers.js",
    "tables.js",
    "finder.js",
    "main.js",
)
STYLES = ("theme.css", "page.css")
_STYLE_PLACE = "/* page.css */"
_SCRIPT_PLACE = "/* main.js */"


class PageRoute:
    """Serves the page. It holds no data: what it shows, its script asks for as its caller."""

    def __init__(self) -> None:
        style, script = _joined(STYLES), _joined(SCRIPTS)
        html = _text("index.html").replace(_STYLE_PLACE, style).replace(_SCRIPT_PLACE, script)
        self._plain = html.encode()
        self._zipped = gzip.compress(self._plain, mtime=0)
        self._headers = {
            "Content-Type": "text/html; charset=utf-8",
            "Content-Security-Policy": _policy(style, script),
            "Vary": "Accept-Encoding",
        }

    def routes(self) -> list[Route]:
        return [Route("GET", "/", Action.OBSERVE, self._page)]

    async def _page(self, request: web.Request, _: Principal) -> web.Response:
        if "gzip" in request.headers.get("Accept-Encoding", ""):
            headers = {**self._headers, "Content-Encoding": "gzip"}
            return web.Response(body=self._zipped, headers=headers)
        return web.Response(body=self._plain, headers=self._headers)


def _policy(style: str, script: str) -> str:
    return "; ".join(
        (
            "default-src 'none'",
            f"script-src '{_hash(script)}'",
            f"style-src '{_hash(style)}'",
            "connect-src 'self'",
            "img-src data:",  # the icon
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
            # No text becomes markup, not even by a mistake of ours.
            "require-trusted-types-for 'script'",
            "trusted-types 'none'",
        )
    )


def _hash(text: str) -> str:
    return "sha256-" + b64encode(sha256(text.encode()).digest()).decode()


def _joined(names: tuple[str, ...]) -> str:
    # The hash is of all between the tags.
    return "\n".join(_text(name) for name in names)


def _text(name: str) -> str:
    return (resources.files("cachesvc.edge") / "page" / name).read_text(encoding="utf-8")
