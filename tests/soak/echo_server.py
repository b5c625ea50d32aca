"""The least that a grpc.aio server can do with the same calls: `... SOCKET FILE`.

It has the service's methods with the same shapes, and answers stored messages, among them the blob
in the file. Its memory is what gRPC, protobuf and the interpreter take under such a load.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import grpc

from cachesvc_proto.v1 import cache_pb2 as pb
from cachesvc_proto.v1 import cache_pb2_grpc

# As long as a hit of L2 takes, so that cancellations find calls under way here too.
WORK_S = 0.002


class EchoService(cache_pb2_grpc.CacheServiceServicer):  # type: ignore[misc]
    def __init__(self, blob: bytes) -> None:
        self._entry = pb.Entry(info=pb.EntryInfo(size_bytes=len(blob)), tensors=blob)

    async def GetHuman(self, _request: object, _context: object) -> pb.GetHumanResponse:
        await asyncio.sleep(WORK_S)
        return pb.GetHumanResponse(entry=self._entry)

    async def GetGarment(
        self, request: pb.GetGarmentRequest, _context: object
    ) -> pb.GetGarmentResponse:
        await asyncio.sleep(WORK_S)
        if request.delivery == pb.DELIVERY_SHARED_FILE:
            return pb.GetGarmentResponse(entry=pb.Entry(info=self._entry.info))
        return pb.GetGarmentResponse(entry=self._entry)

    async def GetTryOn(self, _request: object, _context: object) -> pb.GetTryOnResponse:
        await asyncio.sleep(WORK_S)
        return pb.GetTryOnResponse(human=self._entry, garment=self._entry, text=self._entry)

    async def Get(self, _request: object, _context: object) -> AsyncIterator[pb.GetResponse]:
        await asyncio.sleep(WORK_S)
        yield pb.GetResponse(info=self._entry.info)
        yield pb.GetResponse(data=self._entry.tensors)

    async def Put(self, requests: AsyncIterator[pb.PutRequest], _context: object) -> pb.PutResponse:
        size_bytes = 0
        async for request in requests:
            size_bytes += len(request.data)
        await asyncio.sleep(WORK_S)
        return pb.PutResponse(info=pb.EntryInfo(size_bytes=size_bytes))

    async def Invalidate(self, _request: object, _context: object) -> pb.InvalidateResponse:
        await asyncio.sleep(WORK_S)
        return pb.InvalidateResponse(removed_count=1)

    async def Warm(self, _request: object, _context: object) -> AsyncIterator[pb.WarmResponse]:
        for done in range(3):
            await asyncio.sleep(WORK_S)
            yield pb.WarmResponse(done=done, total=3)

    async def Inspect(self, _request: object, _context: object) -> pb.InspectResponse:
        return pb.InspectResponse()

    async def Stats(self, _request: object, _context: object) -> pb.StatsResponse:
        return pb.StatsResponse(version="echo")


async def serve(socket: str, blob: bytes) -> None:
    server = grpc.aio.server()
    cache_pb2_grpc.add_CacheServiceServicer_to_server(EchoService(blob), server)  # type: ignore[no-untyped-call]
    server.add_insecure_port(f"unix:{socket}")
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1], Path(sys.argv[2]).read_bytes()))
