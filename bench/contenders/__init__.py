"""The rows of the table, in its order. `--only` and `--baseline` take these names."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Listed:
    """`path` is `module:class`: a contender's libraries are loaded in its own process only.

    With `reads` the time includes one read of every byte. A `peer` runs with `--peers` only; if it
    is not available, the report says so and the others run.
    """

    path: str
    reads: bool = False
    peer: bool = False


CONTENDERS = {
    "floor": Listed("floor:Floor"),
    "local": Listed("client_sync:SyncLocal"),
    "local-shared": Listed("client_sync:SyncLocalShared"),
    "local-aio": Listed("client_aio:AioLocal"),
    "local-untouched": Listed("client_sync:SyncUntouched"),
    "load-file": Listed("load_file:LoadFile"),
    "ray": Listed("ray_get:RayGet", peer=True),
    "floor+read": Listed("floor:Floor", reads=True),
    "local+read": Listed("client_sync:SyncLocal", reads=True),
    "local-shared+read": Listed("client_sync:SyncLocalShared", reads=True),
    "ray+read": Listed("ray_get:RayGet", reads=True, peer=True),
    "round-trip": Listed("round_trip:SyncRoundTrip"),
    "round-trip-aio": Listed("round_trip:AioRoundTrip"),
    "first-local": Listed("client_sync:SyncFirst"),
    "first-local-aio": Listed("client_aio:AioFirst"),
    "inline": Listed("client_sync:SyncInline"),
    "inline-aio": Listed("client_aio:AioInline"),
    "redis": Listed("redis_get:RedisGet"),
    "grpc-protobuf": Listed("grpc_protobuf:GrpcProtobuf"),
    "grpc-bytes": Listed("grpc_bytes:GrpcBytes"),
    "vineyard": Listed("vineyard_get:VineyardGet", peer=True),
    "flight": Listed("flight_get:FlightGet", peer=True),
    "memcached": Listed("memcached_get:MemcachedGet", peer=True),
    "v2-disk": Listed("v2_disk:V2Disk", peer=True),
}
