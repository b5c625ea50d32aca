"""A bare grpc.aio server that answers one stored message: as protobuf, or as bytes.

Run as `python -m bench.echo_server SOCKET FILE protobuf|bytes`. For protobuf the file holds a
serialized `GetTryOnResponse`.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import grpc

from cachesvc_proto.v1 import cache_pb2 as pb

PATH = "/bench.Echo/Get"


async def serve(socket: str, handler: grpc.RpcMethodHandler[Any, Any]) -> None:
    """Answer with `handler` until the process is ended."""
    server = grpc.aio.server(options=(("grpc.max_send_message_length", -1),))
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("bench.Echo", {"Get": handler}),)
    )
    server.add_insecure_port(f"unix:{socket}")
    await server.start()
    await server.wait_for_termination()


def protobuf_handler(stored: bytes) -> grpc.RpcMethodHandler[Any, Any]:
    """A handler that has the bytes and answers the message, as an ordinary server would."""
    blobs = {
        part.name: entry.tensors
        for part, entry in pb.GetTryOnResponse.FromString(stored).ListFields()
    }

    async def get(_request: bytes, _context: Any) -> pb.GetTryOnResponse:
        return pb.GetTryOnResponse(**{part: pb.Entry(tensors=blob) for part, blob in blobs.items()})

    return grpc.unary_unary_rpc_method_handler(
        get, response_serializer=pb.GetTryOnResponse.SerializeToString
    )


def bytes_handler(stored: bytes) -> grpc.RpcMethodHandler[Any, Any]:
    """The cheapest answer with these bytes that gRPC allows."""

    async def get(_request: bytes, _context: Any) -> bytes:
        return stored

    return grpc.unary_unary_rpc_method_handler(get)


_HANDLERS = {"protobuf": protobuf_handler, "bytes": bytes_handler}

if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1], _HANDLERS[sys.argv[3]](Path(sys.argv[2]).read_bytes())))
