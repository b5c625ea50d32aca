"""What a route is: a method, a path, what its caller must be allowed to do, a handler."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import NamedTuple

from aiohttp import web

from cachesvc.core.access import Action, Principal

Handler = Callable[[web.Request, Principal], Awaitable[web.StreamResponse]]


class Route(NamedTuple):
    """`action` is checked before `handle` is called; GET also answers HEAD."""

    method: str
    path: str
    action: Action
    handle: Handler
