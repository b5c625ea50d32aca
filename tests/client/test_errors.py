"""Which class of error does an answer become, with and without the daemon's details? Promise 3."""

from __future__ import annotations

import grpc
import pytest

from cachesvc_client import (
    Aborted,
    CacheClient,
    CacheServiceError,
    CacheUnavailable,
    DataLoss,
    DeadlineExceeded,
    InvalidRequest,
    NotCached,
    NotDurable,
    OriginDenied,
    OriginUnavailable,
    Overloaded,
    PermissionDenied,
    PreconditionFailed,
    Unauthenticated,
    UnreadableAnswer,
)
from cachesvc_client.errors import error_of_status
from cachesvc_proto.v1 import cache_pb2
from tests.client.support.scripted_server import ScriptedServer, refuse, reply

Code = grpc.StatusCode


@pytest.mark.parametrize(
    ("code", "reason", "expected"),
    [
        (Code.NOT_FOUND, "NO_SUCH_OBJECT", NotCached),
        (Code.NOT_FOUND, "ORIGIN_OUTDATED", NotCached),
        (Code.INVALID_ARGUMENT, "INVALID_ID", InvalidRequest),
        (Code.FAILED_PRECONDITION, "OWNER_REQUIRED", PreconditionFailed),
        (Code.FAILED_PRECONDITION, "ORIGIN_DENIED", OriginDenied),
        (Code.UNAVAILABLE, "ORIGIN_UNAVAILABLE", OriginUnavailable),
        (Code.UNAVAILABLE, "NOT_DURABLE", NotDurable),
        (Code.UNAVAILABLE, "ERASE_FAILED", NotDurable),
        (Code.UNAVAILABLE, "DRAINING", CacheUnavailable),
        (Code.UNAVAILABLE, "", CacheUnavailable),
        (Code.PERMISSION_DENIED, "ROLE_REQUIRED", PermissionDenied),
        (Code.UNAUTHENTICATED, "", Unauthenticated),
        (Code.RESOURCE_EXHAUSTED, "OVERLOADED", Overloaded),
        (Code.ABORTED, "FILL_FENCED", Aborted),
        (Code.DATA_LOSS, "ORIGIN_DATA_CORRUPT", DataLoss),
        (Code.DEADLINE_EXCEEDED, "", DeadlineExceeded),
        (Code.INTERNAL, "INTERNAL", CacheServiceError),
    ],
)
def test_each_answer_has_its_class(
    code: grpc.StatusCode, reason: str, expected: type[CacheServiceError]
) -> None:
    error = error_of_status(code, "what happened", (("cachesvc-reason", reason),))
    assert type(error) is expected
    assert (error.code, error.reason, error.message) == (code, reason, "what happened")


def test_the_details_tell_objects_and_parts(server: ScriptedServer, client: CacheClient) -> None:
    detail = cache_pb2.ErrorDetail(reason="ORIGIN_DATA_CORRUPT", object_keys=["users/u/x.pkl"])
    detail.parts.add(part="human", code=Code.DATA_LOSS.value[0], reason="ORIGIN_DATA_CORRUPT")
    detail.parts.add(part="garment", code=Code.NOT_FOUND.value[0], reason="NO_SUCH_OBJECT")
    detail.parts.add(part="text", code=999)
    metadata = (("cachesvc-error-bin", detail.SerializeToString()),)
    server.script("GetTryOn", refuse(Code.DATA_LOSS, "cannot be decoded", metadata))
    with pytest.raises(DataLoss) as caught:
        client.get_tryon("u", "c")
    assert caught.value.reason == "ORIGIN_DATA_CORRUPT"
    assert caught.value.object_keys == ("users/u/x.pkl",)
    assert [part.code for part in caught.value.parts] == [
        Code.DATA_LOSS,
        Code.NOT_FOUND,
        Code.UNKNOWN,
    ]
    assert isinstance(caught.value.__cause__, grpc.RpcError)


def test_a_daemon_without_details_still_gives_the_class_of_the_code(
    server: ScriptedServer, client: CacheClient
) -> None:
    server.script("GetTryOn", refuse(Code.NOT_FOUND, "gone"))
    with pytest.raises(NotCached) as caught:
        client.get_tryon("u", "c")
    assert (caught.value.missing, caught.value.reason) == ((), "")
    server.script("GetText", refuse(Code.NOT_FOUND, "gone"))
    with pytest.raises(NotCached) as caught:
        client.get_text("c")
    assert caught.value.missing == ("text",)


def test_damaged_details_do_not_hide_the_error(server: ScriptedServer, client: CacheClient) -> None:
    metadata = (("cachesvc-reason", "OVERLOADED"), ("cachesvc-error-bin", b"\x0a\xff"))
    server.script("GetHuman", refuse(Code.RESOURCE_EXHAUSTED, "full", metadata))
    with pytest.raises(Overloaded, match="full") as caught:
        client.get_human("u")
    assert caught.value.reason == "OVERLOADED"


def test_an_origin_that_could_not_be_asked_is_not_retried_by_the_client(
    server: ScriptedServer, client: CacheClient
) -> None:
    metadata = (("cachesvc-reason", "ORIGIN_UNAVAILABLE"),)
    server.script("GetHuman", refuse(Code.UNAVAILABLE, "S3 is down", metadata))
    with pytest.raises(OriginUnavailable):
        client.get_human("u")
    assert server.calls == ["GetHuman"]


@pytest.mark.parametrize(
    "answer",
    [
        b"\x0a\xff",
        b"\x0a\x04\x0a\x02\xff\xff",
        cache_pb2.GetHumanResponse().SerializeToString(),
        cache_pb2.GetHumanResponse(entry={"info": {"size_bytes": 3}}).SerializeToString(),
        cache_pb2.GetHumanResponse(entry={"tensors": b"no blob"}).SerializeToString(),
    ],
    ids=["truncated", "bad info", "empty", "another delivery", "bad blob"],
)
def test_an_answer_that_cannot_be_read_says_so(
    server: ScriptedServer, client: CacheClient, answer: bytes
) -> None:
    server.script("GetHuman", reply(answer))
    with pytest.raises(UnreadableAnswer):
        client.get_human("u")


@pytest.mark.parametrize(
    "answer",
    [
        cache_pb2.GetResponse(data=b"data before info"),
        cache_pb2.GetResponse(info={"size_bytes": 3}),
    ],
    ids=["no info", "too short"],
)
def test_a_stream_that_is_not_whole_says_so(
    server: ScriptedServer, client: CacheClient, answer: cache_pb2.GetResponse
) -> None:
    server.script("Get", reply(answer.SerializeToString()))
    with pytest.raises(UnreadableAnswer):
        client.get("garment", "c")


def test_a_stream_of_another_version_is_refused_also_if_the_daemon_does_not_know_the_field(
    server: ScriptedServer, client: CacheClient
) -> None:
    """Promise 1. A daemon of the first release ignores a Get's version."""
    info = {"key": {"namespace": "garment", "id": "c"}, "kind_version": "v1"}
    answer = cache_pb2.GetResponse(info=info)
    server.script("Get", reply(answer.SerializeToString()))
    with pytest.raises(
        PreconditionFailed, match="version 'v1', and the call expects 'v2'"
    ) as caught:
        client.get("garment", "c", kind_version="v2")
    assert caught.value.reason == "KIND_VERSION_MISMATCH"
