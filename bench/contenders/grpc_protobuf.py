"""Plain gRPC with generated code: protobuf builds, serializes and parses the bytes."""

from __future__ import annotations

import grpc
import safetensors.torch

from bench.echo_client import EchoClient
from bench.echo_server import PATH
from bench.workloads import Fields
from cachesvc_proto.v1 import cache_pb2 as pb


class GrpcProtobuf(EchoClient):
    title = "grpc.aio, protobuf at both ends + safetensors.torch.load"
    handler = "protobuf"

    def message(self) -> bytes:
        entries = {part: pb.Entry(tensors=blob) for part, blob in self.workload.blobs().items()}
        return pb.GetTryOnResponse(**entries).SerializeToString()

    async def fetch(self, channel: grpc.aio.Channel) -> Fields:
        method: grpc.aio.UnaryUnaryMultiCallable[bytes, pb.GetTryOnResponse]
        method = channel.unary_unary(PATH, response_deserializer=pb.GetTryOnResponse.FromString)
        answer = await method(b"")
        fields: Fields = {}
        for _, entry in answer.ListFields():
            fields |= safetensors.torch.load(entry.tensors)
        return fields
