"""The rows of the table, in its order. Names are what `--only` and `--baseline` take."""

from __future__ import annotations

# Name to `module:class`: a contender's libraries are loaded in its own process only.
CONTENDERS = {
    "inline": "client_sync:SyncInline",
    "inline-aio": "client_aio:AioInline",
    "local": "client_sync:SyncLocal",
    "local-aio": "client_aio:AioLocal",
    "redis": "redis_get:RedisGet",
    "grpc-protobuf": "grpc_protobuf:GrpcProtobuf",
    "grpc-bytes": "grpc_bytes:GrpcBytes",
    "load-file": "load_file:LoadFile",
    "floor": "floor:Floor",
}
