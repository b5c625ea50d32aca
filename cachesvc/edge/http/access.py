"""Who calls over HTTP, and could a foreign web page have sent the request?

A browser on this host reaches loopback, and sends requests for every page that it shows. A foreign
page cannot read an answer (there are no CORS headers), but it could cause a DELETE. So a request
that changes state must come from our own page or from no page.
"""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_address

from aiohttp import HttpVersion11, hdrs, web

from cachesvc.config import HttpSettings
from cachesvc.core.access import Action, Principal
from cachesvc.core.clock import Clock
from cachesvc.core.credentials import Grants, bearer_token
from cachesvc.core.errors import InvalidRequest, PermissionDenied, Unauthenticated
from cachesvc.core.keys import checked_id
from cachesvc.core.proxies import passed_on
from cachesvc.edge.http.tls import certificate_names, has_certificate

# A caller that nobody had to know: it has no role, and learns only whether the daemon is well.
ANYBODY = Principal("anybody", frozenset())
_READING = frozenset({hdrs.METH_GET, hdrs.METH_HEAD})


class HttpAccess:
    """Answers both questions from the settings and the grants."""

    def __init__(self, settings: HttpSettings, grants: Callable[[], Grants], clock: Clock) -> None:
        self._grants = grants
        self._clock = clock
        self._loopback = Principal("loopback", frozenset({settings.loopback_role}))
        self._open_probes = settings.open_probes
        self._hosts = frozenset(host.lower() for host in settings.allowed_hosts) | {"localhost"}

    def admitted(self, request: web.Request, action: Action) -> Principal:
        """Return who calls, if the caller may do `action`.

        Raises:
            Unauthenticated: as `principal_of`.
            PermissionDenied: no role of the caller allows it.
        """
        if action is Action.PROBE and self._open_probes:
            return ANYBODY
        principal = self.principal_of(request)
        principal.check(action)
        return principal

    def principal_of(self, request: web.Request) -> Principal:
        """Return who calls, by token, otherwise by certificate, otherwise by loopback.

        Raises:
            Unauthenticated: the credential is unknown, or the caller has none and is on
                another host or behind a proxy.
        """
        token = bearer_token(request.headers.getall(hdrs.AUTHORIZATION, []))
        if token is not None:
            return self._grants().of_token(token, self._clock.read().wall_ns)
        if has_certificate(request):
            return self._grants().of_names(certificate_names(request))
        if not _is_loopback(request):
            raise Unauthenticated("a caller on another host needs a token or a client certificate")
        if _came_through_proxy(request):
            raise Unauthenticated(
                "a request that a proxy passed on needs a token or a client certificate, also if "
                "the proxy is on this host; see docs/http.md"
            )
        return self._loopback

    def check_source(self, request: web.Request) -> None:
        """Raise PermissionDenied for a request that a foreign page could have sent."""
        host = self._checked_host(request)
        if request.method in _READING:
            return
        site = request.headers.get("Sec-Fetch-Site", "none")
        # Another port of this host is the same site, but not our page.
        if site not in ("none", "same-origin"):
            raise _cross_site()
        origin = request.headers.get(hdrs.ORIGIN)
        if origin is not None and origin.lower() != f"{request.scheme}://{host}":
            raise _cross_site()

    def _checked_host(self, request: web.Request) -> str:
        """Return Host if we serve it: a page that rebinds its own name to us sends that name."""
        hosts = request.headers.getall(hdrs.HOST, [])
        if len(hosts) != 1:
            raise PermissionDenied(
                "a request has exactly one Host header", reason="HOST_NOT_ALLOWED"
            )
        host = hosts[0].lower()
        name = _without_port(host)
        # An address cannot be rebound to another machine as a name can.
        if name not in self._hosts and not _is_address(name):
            raise PermissionDenied(
                "this Host is not served; see http.allowed_hosts (CACHESVC_HTTP__ALLOWED_HOSTS)",
                reason="HOST_NOT_ALLOWED",
            )
        return host


def check_path(raw_path: str) -> None:
    """Raise InvalidRequest unless every part of the path, as it was sent, may be an id.

    Routing decodes `%2F` and resolves `..` first, which would let one path reach the
    route of another. No path that is served needs either.
    """
    path = raw_path.partition("?")[0]
    if path == "/":
        return
    root, *parts = path.split("/")
    if root:
        raise InvalidRequest("the path must begin with /", reason="INVALID_ID")
    for part in parts:
        checked_id(part, "a part of the path")


def _cross_site() -> PermissionDenied:
    return PermissionDenied(
        "a web page of another origin may not do this", reason="CROSS_SITE_REQUEST"
    )


def _is_loopback(request: web.Request) -> bool:
    peer = request.transport and request.transport.get_extra_info("peername")
    if not peer:
        return False
    address = ip_address(peer[0].partition("%")[0])
    mapped = getattr(address, "ipv4_mapped", None)
    return bool((mapped or address).is_loopback)


def _came_through_proxy(request: web.Request) -> bool:
    """Return whether a header or HTTP 1.0 shows a proxy: nginx adds no header, and speaks 1.0."""
    return request.version < HttpVersion11 or passed_on(request.headers)


def _without_port(host: str) -> str:
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True
