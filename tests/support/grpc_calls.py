"""How did the daemon refuse a call, and with which bytes did it answer?"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import grpc
import pytest
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from cachesvc_proto.v1 import cache_pb2 as pb
from cachesvc_proto.v1 import cache_pb2_grpc

SERVICE = "cachesvc.v1.CacheService"
CHUNK_BYTES = 1 << 20
TIMEOUT_S = 30.0


class Refusal:
    """How a call ended; filled in when the `refused` block ends."""

    code: grpc.StatusCode
    message: str
    reason: str
    detail: pb.ErrorDetail

    def read(self, error: grpc.RpcError) -> None:
        call = cast("grpc.Call", error)
        metadata: dict[str, Any] = dict(call.trailing_metadata() or ())
        self.code = call.code()
        self.message = call.details() or ""
        self.reason = metadata.get("cachesvc-reason", "")
        self.detail = pb.ErrorDetail.FromString(metadata.get("cachesvc-error-bin", b""))

    @property
    def status(self) -> tuple[grpc.StatusCode, str]:
        return self.code, self.reason

    def parts(self) -> dict[str, tuple[int, str]]:
        """Return the gRPC code and reason of each part of a try-on."""
        return {part.part: (part.code, part.reason) for part in self.detail.parts}


@contextmanager
def refused() -> Iterator[Refusal]:
    """Expect the call inside to be refused; yield the refusal."""
    refusal = Refusal()
    with pytest.raises(grpc.RpcError) as caught:
        yield refusal
    refusal.read(caught.value)


def get_human(
    stub: cache_pb2_grpc.CacheServiceStub,
    user_id: str,
    category: pb.HumanCategory = pb.HUMAN_CATEGORY_UPPER_BODY,
    **fields: Any,
) -> pb.Entry:
    request = pb.GetHumanRequest(user_id=user_id, category=category, **fields)
    answer: pb.GetHumanResponse = stub.GetHuman(request, timeout=TIMEOUT_S)
    return answer.entry


def get_garment(
    stub: cache_pb2_grpc.CacheServiceStub, clothing_id: str, owner_id: str = "", **fields: Any
) -> pb.Entry:
    request = pb.GetGarmentRequest(clothing_id=clothing_id, owner_id=owner_id, **fields)
    answer: pb.GetGarmentResponse = stub.GetGarment(request, timeout=TIMEOUT_S)
    return answer.entry


def put(
    stub: cache_pb2_grpc.CacheServiceStub,
    namespace: str,
    entry_id: str,
    blob: bytes,
    **header: Any,
) -> pb.EntryInfo:
    """Store `blob` in chunks of the contract's size."""
    key = pb.EntryKey(namespace=namespace, id=entry_id)
    messages = put_messages(pb.PutHeader(key=key, **header), blob)
    answer: pb.PutResponse = stub.Put(messages, timeout=TIMEOUT_S)
    return answer.info


def put_messages(header: pb.PutHeader, blob: bytes) -> Iterator[pb.PutRequest]:
    yield pb.PutRequest(header=header)
    for start in range(0, len(blob), CHUNK_BYTES):
        yield pb.PutRequest(data=blob[start : start + CHUNK_BYTES])


def streamed(messages: Iterable[pb.GetResponse]) -> tuple[pb.EntryInfo, bytes]:
    """Return a streamed Get's entry info and bytes, after checking the stream's shape."""
    first, *rest = messages
    assert first.WhichOneof("part") == "info"
    assert all(message.WhichOneof("part") == "data" for message in rest)
    assert all(len(message.data) <= CHUNK_BYTES for message in rest)
    return first.info, b"".join(message.data for message in rest)


def raw_answer(channel: grpc.Channel, method: str, request: Message) -> bytes:
    """Return the bytes of a unary answer as they come over the wire."""
    call: grpc.UnaryUnaryMultiCallable[Message, bytes] = channel.unary_unary(
        f"/{SERVICE}/{method}",
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=lambda data: data,
    )
    return call(request, timeout=TIMEOUT_S)


def moment(wall_s: float) -> Timestamp:
    stamp = Timestamp()
    stamp.FromNanoseconds(int(wall_s * 1e9))
    return stamp
