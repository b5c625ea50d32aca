"""The gRPC listeners: the workers' socket, the admin's, TCP; and their limits.

Each listener is its own `grpc.aio` server over the same handlers, because a server cannot tell on
which port a call arrived. All share one poller.
"""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import grpc

# Not `grpc.aio.server`, in whose place tracing libraries put their own: those of OpenTelemetry and
# Sentry fail at each stream of a handler that writes its messages itself, as ours do.
from grpc.aio import _server as _grpc_aio
from grpc_health.v1 import health, health_pb2
from grpc_reflection.v1alpha import reflection

from cachesvc.config import GrpcSettings
from cachesvc.config.access import is_loopback
from cachesvc.config.messages import setting
from cachesvc.core.clock import Clock
from cachesvc.core.credentials import Grants
from cachesvc.core.errors import ConfigError
from cachesvc.edge.certificates import Certificates
from cachesvc.edge.grpc import callers, left_sockets, methods
from cachesvc.edge.grpc.callers import Who
from cachesvc.edge.grpc.calls import Calls
from cachesvc.edge.grpc.methods import SERVICE_NAME
from cachesvc.edge.grpc.service import CacheService
from cachesvc.edge.tls_files import TlsFiles

# Puts stream chunks of 1 MiB; nothing else a caller sends is large.
MAX_RECEIVE_BYTES = 2 << 20
# For each TCP listener: entries and their readers also need descriptors.
MAX_TCP_CONNECTIONS = 4096
# A call counts as ended once gRPC has its answer. The last bytes may still be on the way to a slow
# reader.
ANSWERS_READ_WITHIN_S = 1.0
GROUP_SOCKET_MODE = 0o660
ADMIN_SOCKET_MODE = 0o600

_OPTIONS = (
    # Two daemons on one port would each get half of the calls, without an error.
    ("grpc.so_reuseport", 0),
    ("grpc.max_receive_message_length", MAX_RECEIVE_BYTES),
    ("grpc.max_send_message_length", -1),
    ("grpc.max_metadata_size", 16 << 10),
    ("grpc.server_handshake_timeout_ms", 3000),
    # grpc-js can be told to ping every 30 s; pings within 20 s are refused.
    ("grpc.http2.min_ping_interval_without_data_ms", 20_000),
    ("grpc.keepalive_permit_without_calls", 1),
)
_TCP_OPTIONS = (
    ("grpc.max_allowed_incoming_connections", MAX_TCP_CONNECTIONS),
    # Only the handshake checks a certificate: this is how long a connection may outlive its
    # certificate or CA. Calls under way may end first.
    ("grpc.max_connection_age_ms", 15 * 60_000),
    ("grpc.max_connection_age_grace_ms", 5 * 60_000),
    # Connections that were opened and forgotten.
    ("grpc.max_connection_idle_ms", 5 * 60_000),
)


class GrpcServer:
    """Serves CacheService, health and reflection on every listener that was bound."""

    def __init__(
        self, settings: GrpcSettings, service: CacheService, calls: Calls, clock: Clock
    ) -> None:
        self._settings = settings
        self._service = service
        self._calls = calls
        self._clock = clock
        self._health = health.aio.HealthServicer()
        self._servers: list[grpc.aio.Server] = []

    def bind_group_socket(self, path: Path, gid: int | None, who: Who) -> None:
        """Listen on a unix socket that only its owner and group can reach.

        Raises:
            ConfigError: a daemon listens at `path`, or no socket can be made there.
        """
        self._bind_unix(path, GROUP_SOCKET_MODE, gid, who)

    def bind_admin_socket(self, path: Path) -> None:
        """Listen on a unix socket for the daemon's own user. Raises as `bind_group_socket`."""
        self._bind_unix(path, ADMIN_SOCKET_MODE, None, callers.always(callers.ADMIN_SOCKET))

    def bind_tcp(
        self,
        address: str,
        grants: Callable[[], Grants],
        certificates: Certificates,
        on_reload_failure: Callable[[], None] = lambda: None,
    ) -> int:
        """Listen on TCP as the settings say, and return the port.

        Raises:
            ConfigError: the address is taken, or a TLS file cannot be used.
        """
        tls = self._settings.tls
        who = callers.over_tcp(
            grants,
            self._clock,
            callers.LOOPBACK if is_loopback(address) else None,
            tls=tls.is_on,
        )
        server = self._server(who, _TCP_OPTIONS)
        try:
            if not tls.is_on:
                assert is_loopback(address), "the settings refuse this"
                return server.add_insecure_port(address)
            files = certificates.reloaded("grpc", tls, _configuration, on_reload_failure)
            # gRPC asks for newer credentials at each connection. The same again would crash the
            # process: gRPC frees what handshakes under way still use.
            credentials = grpc.dynamic_ssl_server_credentials(
                files.current(),
                files.newer,  # type: ignore[arg-type]  # None = no change, says gRPC
                require_client_authentication=tls.client_ca_file is not None,
            )
            return server.add_secure_port(address, credentials)
        except RuntimeError as exc:
            raise ConfigError(
                f"{setting('grpc.listen')} is {address}: cannot listen there; another process may "
                "have the port, or this host has no such address"
            ) from exc

    async def start(self) -> None:
        for server in self._servers:
            await server.start()

    async def set_serving(self, *, serving: bool) -> None:
        """Set the health of the server and of the service: whether calls are answered."""
        await self._set_health("", is_well=serving)
        await self.set_ready(serving)

    async def set_ready(self, ready: bool) -> None:
        """Set the health of the service to what /readyz says.

        The server's own health stays: it is for liveness probes, and a daemon with unfinished
        invalidations must not be restarted.
        """
        await self._set_health(SERVICE_NAME, is_well=ready)

    async def _set_health(self, name: str, *, is_well: bool) -> None:
        status = health_pb2.HealthCheckResponse
        await self._health.set(name, status.SERVING if is_well else status.NOT_SERVING)

    async def drain(self, deadline_s: float) -> bool:
        """Refuse new calls, wait for those under way, then close the listeners."""
        await self.set_serving(serving=False)
        in_time = await self._calls.drain(deadline_s)
        await asyncio.gather(*(server.stop(ANSWERS_READ_WITHIN_S) for server in self._servers))
        return in_time

    def _bind_unix(self, path: Path, mode: int, gid: int | None, who: Who) -> None:
        left_sockets.make_way(path)
        server = self._server(who, ())
        # The umask closes the socket to other users from its first moment.
        earlier = os.umask(0o777 & ~mode)
        try:
            # gRPC reads %20 in an address as a space.
            server.add_insecure_port(f"unix:{quote(str(path))}")
        except RuntimeError as exc:
            raise ConfigError(f"{path}: cannot listen; see CACHESVC_GRPC__SOCKET") from exc
        finally:
            os.umask(earlier)
        try:
            if gid is not None:
                os.chown(path, -1, gid)
            path.chmod(mode)
        except OSError as exc:
            raise ConfigError(f"{path}: its access cannot be set: {exc.strerror}") from exc

    def _server(self, who: Who, options: tuple[tuple[str, int], ...]) -> grpc.aio.Server:
        streams = ("grpc.max_concurrent_streams", self._settings.max_concurrent_streams)
        server: grpc.aio.Server = _grpc_aio.server(options=(*_OPTIONS, streams, *options))
        for name, handlers in (
            (SERVICE_NAME, methods.cache_methods(self._service, self._calls, who)),
            (methods.HEALTH_NAME, methods.health_methods(self._health, who)),
            (reflection.SERVICE_NAME, methods.reflection_methods(who)),
        ):
            server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(name, handlers),))
        self._servers.append(server)
        return server


def _configuration(files: TlsFiles, _: ssl.SSLContext) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration(
        [(files.key, files.certificate)], root_certificates=files.client_ca or None
    )
