"""How is the gRPC server made, and on which sockets does it listen?"""

from __future__ import annotations

from collections.abc import Callable

from cachesvc.app.instruments import Instruments
from cachesvc.config import Settings
from cachesvc.core.credentials import Grants
from cachesvc.edge.certificates import Certificates
from cachesvc.edge.grpc import callers
from cachesvc.edge.grpc.calls import Calls
from cachesvc.edge.grpc.server import GrpcServer
from cachesvc.edge.grpc.service import CacheService


def make_server(settings: Settings, service: CacheService, instruments: Instruments) -> GrpcServer:
    """Return the server, bound to no socket yet."""
    calls = Calls(settings.grpc.default_deadline_s, settings.grpc.stream_stall_s)
    instruments.metrics.read_calls_from(calls.tally)
    return GrpcServer(settings.grpc, service, calls, instruments.clock)


def bind(
    server: GrpcServer,
    settings: Settings,
    gid: int | None,
    grants: Callable[[], Grants],
    certificates: Certificates,
    instruments: Instruments,
) -> int:
    """Bind both unix sockets, and the TCP port that is returned: 0 = none. Raises ConfigError."""
    workers = callers.socket_group(frozenset(settings.access.socket_roles))
    server.bind_group_socket(settings.socket_path, gid, callers.always(workers))
    server.bind_admin_socket(settings.admin_socket_path)
    if not settings.grpc.listen:
        return 0
    failures = instruments.metrics.reload_failures
    return server.bind_tcp(
        settings.grpc.listen, grants, certificates, lambda: failures.inc("grpc_tls")
    )
