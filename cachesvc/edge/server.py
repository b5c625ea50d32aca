"""The gRPC server: which methods, which listeners, which limits."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.message import Message
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from cachesvc.config import GrpcSettings
from cachesvc.core.errors import ConfigError
from cachesvc.edge.calls import Calls
from cachesvc.edge.inline import serialize_entries
from cachesvc.edge.service import CacheService
from cachesvc_proto.v1 import cache_pb2 as pb

SERVICE_NAME = pb.DESCRIPTOR.services_by_name["CacheService"].full_name
# Puts stream chunks of 1 MiB; nothing else a caller sends is large.
MAX_RECEIVE_BYTES = 2 << 20
SOCKET_MODE = 0o660

_OPTIONS = (
    # Two daemons on one port would each get half of the calls, without an error.
    ("grpc.so_reuseport", 0),
    ("grpc.max_receive_message_length", MAX_RECEIVE_BYTES),
    ("grpc.max_send_message_length", -1),
    ("grpc.max_metadata_size", 16 << 10),
    ("grpc.server_handshake_timeout_ms", 3000),
    # grpc-js pings every 30 s where it is told to; more often is refused.
    ("grpc.http2.min_ping_interval_without_data_ms", 20_000),
    ("grpc.keepalive_permit_without_calls", 1),
)


class GrpcServer:
    """Serves CacheService, health and reflection."""

    def __init__(self, settings: GrpcSettings, service: CacheService, calls: Calls) -> None:
        self._calls = calls
        self._health = health.aio.HealthServicer()
        self._server = grpc.aio.server(
            options=(*_OPTIONS, ("grpc.max_concurrent_streams", settings.max_concurrent_streams))
        )
        self._server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(SERVICE_NAME, _handlers(service, calls)),)
        )
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        names = (
            SERVICE_NAME,
            health_pb2.DESCRIPTOR.services_by_name["Health"].full_name,
            reflection.SERVICE_NAME,
        )
        reflection.enable_server_reflection(names, self._server)

    def bind_socket(self, path: Path, gid: int | None) -> None:
        """Listen on a unix socket that only its owner and group can reach.

        Raises:
            ConfigError: somebody listens there, or something else lies at `path`.
        """
        _make_way(path)
        # The socket is born under the umask: closed to everyone else from the first moment.
        earlier = os.umask(0o117)
        try:
            self._server.add_insecure_port(f"unix:{path}")
        except RuntimeError as exc:
            raise ConfigError(f"{path}: cannot listen; see CACHESVC_GRPC__SOCKET") from exc
        finally:
            os.umask(earlier)
        if gid is not None:
            os.chown(path, -1, gid)
        path.chmod(SOCKET_MODE)

    def bind_tcp(self, address: str) -> int:
        """Listen on loopback, and return the port.

        Raises:
            ConfigError: the address is taken.
        """
        try:
            return self._server.add_insecure_port(address)
        except RuntimeError as exc:
            raise ConfigError(
                f"{address}: cannot listen, is it taken? See CACHESVC_GRPC__LISTEN"
            ) from exc

    async def start(self) -> None:
        await self._server.start()

    async def set_ready(self, *, ready: bool) -> None:
        """Tell health checks whether to send calls here."""
        status = health_pb2.HealthCheckResponse
        state = status.SERVING if ready else status.NOT_SERVING
        for name in ("", SERVICE_NAME):
            await self._health.set(name, state)

    async def drain(self, deadline_s: float) -> bool:
        """Refuse new calls, wait for those under way, then close the listeners."""
        await self.set_ready(ready=False)
        in_time = await self._calls.drain(deadline_s)
        await self._server.stop(grace=0)
        return in_time


def _make_way(path: Path) -> None:
    """Remove a socket that a daemon which died left behind, and nothing else."""
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
        return
    if not stat.S_ISSOCK(mode):
        raise ConfigError(f"{path}: not a socket; remove it or set CACHESVC_GRPC__SOCKET")
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            path.unlink(missing_ok=True)
            return
        except OSError as exc:
            raise ConfigError(f"{path}: cannot be looked at: {exc.strerror}") from exc
    raise ConfigError(f"{path}: another daemon listens there; see CACHESVC_GRPC__SOCKET")


def _handlers(service: CacheService, calls: Calls) -> dict[str, grpc.RpcMethodHandler[Any, Any]]:
    def entries(rpc: str, handle: Any, request: Any) -> grpc.RpcMethodHandler[Any, Any]:
        return grpc.unary_unary_rpc_method_handler(
            calls.unary(rpc, handle),
            request_deserializer=request.FromString,
            response_serializer=serialize_entries,
        )

    def unary(rpc: str, handle: Any, request: Any) -> grpc.RpcMethodHandler[Any, Any]:
        return grpc.unary_unary_rpc_method_handler(
            calls.unary(rpc, handle),
            request_deserializer=request.FromString,
            response_serializer=_serialize,
        )

    def streaming(rpc: str, handle: Any, request: Any) -> grpc.RpcMethodHandler[Any, Any]:
        return grpc.unary_stream_rpc_method_handler(
            calls.streaming(rpc, handle),
            request_deserializer=request.FromString,
            response_serializer=_serialize,
        )

    return {
        "GetHuman": entries("GetHuman", service.get_human, pb.GetHumanRequest),
        "GetGarment": entries("GetGarment", service.get_garment, pb.GetGarmentRequest),
        "GetText": entries("GetText", service.get_text, pb.GetTextRequest),
        "GetTryOn": entries("GetTryOn", service.get_try_on, pb.GetTryOnRequest),
        "Get": streaming("Get", service.get, pb.GetRequest),
        "Put": grpc.stream_unary_rpc_method_handler(
            calls.unary("Put", service.put),
            request_deserializer=pb.PutRequest.FromString,
            response_serializer=_serialize,
        ),
        "Invalidate": unary("Invalidate", service.invalidate, pb.InvalidateRequest),
        "Warm": streaming("Warm", service.warm, pb.WarmRequest),
        "Inspect": unary("Inspect", service.inspect, pb.InspectRequest),
        "Stats": unary("Stats", service.stats, pb.StatsRequest),
        "Attach": unary("Attach", service.attach, pb.AttachRequest),
        "ReportHits": unary("ReportHits", service.report_hits, pb.ReportHitsRequest),
    }


def _serialize(message: Message) -> bytes:
    return message.SerializeToString()
