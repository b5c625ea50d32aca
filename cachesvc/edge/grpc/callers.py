"""Who makes this gRPC call?

Each listener has its own function for this, so that the unix socket, which the hot path uses, needs
no look-up: every process that can open the socket is in its group. gRPC's "local credentials" would
add nothing, because they check no identity.

Over TCP the bearer token decides; without a token, the certificate's names; without both, the
listener: `worker` on loopback, refused elsewhere. TLS has refused certificates of other CAs and
outside their dates; it accepts every certificate of the CA, so the names are compared here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from cachesvc.core.access import Principal, Role
from cachesvc.core.clock import Clock
from cachesvc.core.credentials import Grants, NameKind, SubjectName, bearer_token
from cachesvc.core.errors import Unauthenticated
from cachesvc.core.proxies import passed_on
from cachesvc.edge.grpc.calls import Context

# Raises Unauthenticated.
Who = Callable[[Context], Principal]

ADMIN_SOCKET = Principal("admin socket", frozenset({Role.ADMIN}))
LOOPBACK = Principal("loopback", frozenset({Role.WORKER}))
# gRPC's names for the kinds of a verified SAN.
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
    """Return who calls over TCP. `anonymous` shows no credentials; None = refused."""

    def who(context: Context) -> Principal:
        metadata = tuple(context.invocation_metadata() or ())
        token = bearer_token(
            value if isinstance(value, str) else value.decode("latin-1")
            for name, value in metadata
            if name == "authorization"
        )
        if token is not None:
            return grants().of_token(token, clock.read().wall_ns)
        # Not cached by peer address: a later connection may have the same address.
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
