"""A route: a method, a path, the action that its caller must be allowed, and a handler."""

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
