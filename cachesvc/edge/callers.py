"""Who makes this gRPC call?

Answered for each listener by a function of its own, so that the unix socket, which
the hot path uses, has nothing to look up: whoever can open it is in its group. gRPC's
"local credentials" would add nothing to that; they check nobody's identity.

Over TCP a bearer token decides, else the certificate's names, else what the listener
gives to nobody in particular: `worker` on loopback, nothing beyond. TLS itself has
refused certificates of another CA or date; it takes every one of the CA, so the names
are compared here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from cachesvc.core.access import Principal, Role
from cachesvc.core.clock import Clock
from cachesvc.core.credentials import Grants, NameKind, SubjectName, bearer_token
from cachesvc.core.errors import Unauthenticated
from cachesvc.core.proxies import passed_on
from cachesvc.edge.calls import Context

# Raises Unauthenticated.
Who = Callable[[Context], Principal]

ADMIN_SOCKET = Principal("admin socket", frozenset({Role.ADMIN}))
LOOPBACK = Principal("loopback", frozenset({Role.WORKER}))
# What gRPC calls a verified SAN, by kind.
_PROPERTIES: dict[str, Callable[[str], SubjectName]] = {
    "peer_dns": SubjectName.dns,
    "peer_uri": lambda text: SubjectName(NameKind.URI, text),
    "peer_ip": lambda text: SubjectName(NameKind.IP, text),
    "peer_email": lambda text: SubjectName(NameKind.EMAIL, text),
}


def socket_group(roles: frozenset[Role]) -> Principal:
    return Principal("unix socket", roles)


def always(principal: Principal) -> Who:
    """Return who calls on a listener that only `principal` can reach."""
    return lambda _: principal


def over_tcp(
    grants: Callable[[], Grants], clock: Clock, anonymous: Principal | None, *, tls: bool
) -> Who:
    """Return who calls over TCP; `anonymous` is whoever shows nothing, None = refused."""

    def who(context: Context) -> Principal:
        metadata = tuple(context.invocation_metadata() or ())
        token = bearer_token(
            value if isinstance(value, str) else value.decode("latin-1")
            for name, value in metadata
            if name == "authorization"
        )
        if token is not None:
            return grants().of_token(token, clock.read().wall_ns)
        # Not kept by the peer's address: a later connection may have the same one.
        names = tuple(_names(context.auth_context())) if tls else ()
        if names:
            return grants().of_names(names)
        # A proxy on this host makes strangers look like loopback.
        if anonymous is None or passed_on(name for name, _ in metadata):
            raise Unauthenticated("a client certificate or a bearer token is needed here")
        return anonymous

    return who


def _names(properties: Mapping[str, object]) -> Iterator[SubjectName]:
    for name, make in _PROPERTIES.items():
        values = properties.get(name, ())
        assert isinstance(values, (list, tuple))
        for value in values:
            yield make(value.decode("utf-8", "replace"))
