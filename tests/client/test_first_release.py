"""Do clients and daemons of the first release understand those of today?

`first_release/cache.binpb` is the contract of the first release, and `requests.json` has requests
of its client: one Call for each method, and a Put of the garment that VALUES holds.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import grpc
import pytest
import torch
from google.protobuf import (
    descriptor_pb2,
    descriptor_pool,
    duration_pb2,
    message_factory,
    timestamp_pb2,
)

from cachesvc_client import CacheClient, PutOptions, TryOnKey, requests
from cachesvc_proto.v1 import cache_pb2
from tests.conftest import NewDaemon
from tests.support.daemons import Daemon

FIRST_RELEASE = Path(__file__).parent / "first_release"
RECORDED = json.loads((FIRST_RELEASE / "requests.json").read_text())
CALLS = [(method, bytes.fromhex(request)) for method, request in RECORDED["calls"]]
PUT = [bytes.fromhex(message) for message in RECORDED["put"]]

MOMENT = datetime(2026, 11, 2, 10, 0, 0, 250_000, timezone.utc)  # noqa: UP017 - also Python 3.10
OPTIONS = PutOptions("user-2", MOMENT, timedelta(hours=1, milliseconds=5))
VALUES = {
    "garm_img": bytes(range(18)),
    "garm_tensor": torch.arange(12, dtype=torch.float16).reshape(1, 3, 2, 2),
}
NO_TARGET = dict.fromkeys(("user_id", "clothing_id", "owner_id", "namespace", "key", "everything"))


def contract() -> descriptor_pb2.FileDescriptorProto:
    return descriptor_pb2.FileDescriptorProto.FromString(
        (FIRST_RELEASE / "cache.binpb").read_bytes()
    )


def message_of(name: str) -> type[Any]:
    """Return a message's class as the first release has it."""
    pool = descriptor_pool.DescriptorPool()
    for used in (duration_pb2, timestamp_pb2):
        pool.AddSerializedFile(used.DESCRIPTOR.serialized_pb)
    pool.Add(contract())
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"cachesvc.v1.{name}"))


def lines_of(file: descriptor_pb2.FileDescriptorProto) -> Iterator[str]:
    """Yield what the other side relies on, one line for each field, enum value and method."""
    for message in file.message_type:
        assert not message.nested_type
        for field in message.field:
            oneof = (
                message.oneof_decl[field.oneof_index].name if field.HasField("oneof_index") else ""
            )
            yield (
                f"{message.name}.{field.name} = {field.number}: {field.type} {field.type_name} "
                f"{field.label} {oneof} {field.proto3_optional}"
            )
    for enum in file.enum_type:
        yield from (f"{enum.name}.{value.name} = {value.number}" for value in enum.value)
    for service in file.service:
        for method in service.method:
            yield (
                f"{file.package}.{service.name}.{method.name} {method.input_type} "
                f"{method.client_streaming} {method.output_type} {method.server_streaming}"
            )


def test_the_contract_keeps_everything_of_the_first_release() -> None:
    today = descriptor_pb2.FileDescriptorProto.FromString(cache_pb2.DESCRIPTOR.serialized_pb)
    kept = [*lines_of(contract())]
    assert len(kept) > 100
    assert set(kept) <= {*lines_of(today)}


def test_this_client_sends_the_requests_of_the_first_release() -> None:
    """So a daemon of the first release understands them."""
    sent = [
        requests.get_human("user-7", "dresses", MOMENT, "v3", shared=True),
        requests.get_garment("coat-3", "user-2", MOMENT, "v3", shared=False),
        requests.get_text("coat-3", "user-2", None, "", shared=True),
        requests.get_tryon(
            TryOnKey("user-7", "coat-3", "lower_body", "user-2"),
            MOMENT,
            {"human": "v3", "text": "v4"},
            shared=True,
        ),
        requests.get("garment", "coat-3", "user-2", MOMENT, ""),
        *(
            requests.invalidate({**NO_TARGET, **target}, MOMENT, True)
            for target in (
                {"user_id": "user-7"},
                {"clothing_id": "coat-3"},
                {"owner_id": "user-2"},
                {"namespace": "garment"},
                {"key": ("text", "coat-3")},
                {"everything": True},
            )
        ),
        requests.warm("user-7", ["upper_body", "dresses"], ["coat-3", ("coat-4", "user-2")]),
        *requests.report_hits([("garment", "coat-3", 12345678901234567, 3)]),
        requests.inspect("garment", "coat-3"),
        requests.stats(),
    ]
    assert [(call.method, call.request) for call in sent] == CALLS
    upload = requests.put("garment", "coat-3", VALUES | {"garm_img": image()}, OPTIONS)
    assert next(upload.messages()) == PUT[0]


def image() -> Any:
    from PIL import Image

    return Image.frombytes("RGB", (3, 2), VALUES["garm_img"])


@pytest.fixture
def daemon(new_daemon: NewDaemon) -> Daemon:
    return new_daemon()


@pytest.fixture
def channel(daemon: Daemon) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(daemon.admin_target) as channel:
        yield channel


def put_as_the_first_release(channel: grpc.Channel) -> Any:
    # A daemon refuses a source that is a month old.
    header = message_of("PutRequest").FromString(PUT[0])
    header.header.as_of.GetCurrentTime()
    method = channel.stream_unary("/cachesvc.v1.CacheService/Put")
    answer = method(iter([header.SerializeToString(), *PUT[1:]]), timeout=20)
    return message_of("PutResponse").FromString(answer)


def asked(channel: grpc.Channel, method: str, request: bytes) -> list[Any]:
    """Return the answers to a recorded request, as the first release reads them."""
    path = f"/cachesvc.v1.CacheService/{method}"
    answer = message_of(f"{method}Response")
    if method in ("Get", "Warm"):
        return [answer.FromString(one) for one in channel.unary_stream(path)(request, timeout=20)]
    return [answer.FromString(channel.unary_unary(path)(request, timeout=20))]


def test_what_a_client_of_the_first_release_puts_a_client_of_today_reads(
    daemon: Daemon, channel: grpc.Channel
) -> None:
    stored = put_as_the_first_release(channel)
    with CacheClient(daemon.target) as client:
        for _ in range(2):  # the second is a local hit
            entry = client.get_garment("coat-3")
            assert entry.info.generation == stored.info.generation
            assert entry.image("garm_img").tobytes() == VALUES["garm_img"]
            assert torch.equal(entry["garm_tensor"], VALUES["garm_tensor"])
        assert client.transport == "shared_file"


def test_what_a_client_of_today_puts_a_client_of_the_first_release_reads(
    daemon: Daemon, channel: grpc.Channel
) -> None:
    with CacheClient(daemon.target) as client:
        client.put_garment("coat-3", garm_img=image(), garm_tensor=VALUES["garm_tensor"])
        blob = bytes(client.get_garment("coat-3").blob)
    request = message_of("GetGarmentRequest")(clothing_id="coat-3")
    (inline,) = asked(channel, "GetGarment", request.SerializeToString())
    assert inline.entry.tensors == blob
    request.delivery = cache_pb2.DELIVERY_SHARED_FILE
    (shared,) = asked(channel, "GetGarment", request.SerializeToString())
    assert (daemon.runtime_dir / shared.entry.file.name).read_bytes() == blob
    assert shared.entry.info.key.id == "coat-3"


def reason_or_last(channel: grpc.Channel, method: str, request: bytes) -> Any:
    try:
        return asked(channel, method, request)[-1]
    except grpc.RpcError as error:
        return dict(error.trailing_metadata())["cachesvc-reason"]


def test_every_request_of_the_first_release_is_understood(channel: grpc.Channel) -> None:
    put_as_the_first_release(channel)
    human, garment, text, tryon, part, *removed, warmed, reported, inspected, stats = [
        reason_or_last(channel, method, request) for method, request in CALLS
    ]
    # The versions that the requests name are not this daemon's.
    assert human == garment == tryon == "KIND_VERSION_MISMATCH"
    assert text == "NO_SUCH_OBJECT"
    sent = [message_of("PutRequest").FromString(message).data for message in PUT[1:]]
    assert part.data == b"".join(sent)
    # The second of six invalidations is the garment's.
    assert [answer.removed_count for answer in removed] == [0, 1, 0, 0, 0, 0]
    assert (warmed.done, warmed.total, warmed.failed.reason) == (6, 6, "NO_SUCH_OBJECT")
    assert reported.counted == 0
    assert list(inspected.tiers) == []
    assert (stats.puts, stats.invalidations) == (1, 6)
