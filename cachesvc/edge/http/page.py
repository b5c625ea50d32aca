"""The status page at `/`: the files of `static/`, joined once into one answer.

Its policy lets the browser run only scripts and styles of known hashes, and send requests only to
this daemon.
"""

from __future__ import annotations

import gzip
from base64 import b64encode
from hashlib import sha256
from importlib import resources

from aiohttp import web

from cachesvc.core.access import Action, Principal
from cachesvc.edge.http.routes import Route

# All share one module scope: a file sees what the files before it declare.
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
    """Serves the page. It holds no data: its script requests them as the caller."""

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
            # No text becomes markup, even by mistake.
            "require-trusted-types-for 'script'",
            "trusted-types 'none'",
        )
    )


def _hash(text: str) -> str:
    return "sha256-" + b64encode(sha256(text.encode()).digest()).decode()


def _joined(names: tuple[str, ...]) -> str:
    # The hash covers all between the tags.
    return "\n".join(_text(name) for name in names)


def _text(name: str) -> str:
    return (resources.files("cachesvc.edge.http") / "static" / name).read_text(encoding="utf-8")
