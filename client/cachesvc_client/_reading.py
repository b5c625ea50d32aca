"""Reads the daemon's answers: serialized messages in, the values of `answers` out.

Every reader raises UnreadableAnswer.
"""

from __future__ import annotations

import dataclasses
from datetime import datetime, timedelta, timezone
from typing import NamedTuple, TypeVar

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import DecodeError, Message
from google.protobuf.timestamp_pb2 import Timestamp

from cachesvc_client._views import writable_view
from cachesvc_client._wire import RawEntry, WireError, read_entries
from cachesvc_client.answers import (
    EntryInfo,
    EntryKey,
    InspectedTier,
    Inspection,
    Invalidated,
    Tier,
    WarmFailure,
    WarmProgress,
)
from cachesvc_client.errors import PreconditionFailed, UnreadableAnswer
from cachesvc_format.names import clipped
from cachesvc_proto.v1 import cache_pb2

_M = TypeVar("_M", bound=Message)
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
# An answer with a blob is larger; protobuf parses smaller answers, whose copies are cheap.
SMALL_ANSWER_BYTES = 4096
_TIERS = {
    int(cache_pb2.TIER_MEMORY): Tier.MEMORY,
    int(cache_pb2.TIER_DISK): Tier.DISK,
    int(cache_pb2.TIER_ORIGIN): Tier.ORIGIN,
}
# Fields of EntryInfo that have the message's name and value.
_PLAIN_FIELDS = tuple(
    field.name for field in dataclasses.fields(EntryInfo) if field.type in ("bool", "int", "str")
)


class SharedFile(NamedTuple):
    """A blob to map, by its name below the runtime directory.

    `expires_in_ns` counts from the answer. `origin_ns` is the entry's origin time in
    wall nanoseconds; an `origin_after` up to `grace_ns` after it is met.
    """

    name: str
    expires_in_ns: int
    origin_ns: int
    grace_ns: int


class Received(NamedTuple):
    """One entry as it arrived: either its bytes or a file to map.

    `info_of` turns `info` into an EntryInfo at its first use: after a call a worker's CPU caches
    are cold, and each line costs five times what it does in a loop. `blob` may be written and
    belongs to its holder. `boot_id` identifies the daemon's run, in answers to requests for shared
    files.
    """

    info: EntryInfo | cache_pb2.EntryInfo
    blob: memoryview | None
    file: SharedFile | None = None
    boot_id: bytes = b""


class Attachment(NamedTuple):
    """Where the daemon keeps its shared files: the path is the daemon's own view."""

    runtime_dir: str
    boot_id: bytes


class ReceivedTryOn(NamedTuple):
    """The three entries of a try-on as they arrived."""

    human: Received
    garment: Received
    text: Received


def view_of_answer(answer: bytes) -> memoryview:
    """Return a view of bytes that gRPC just made, writable if they may contain a blob."""
    return memoryview(answer) if len(answer) <= SMALL_ANSWER_BYTES else writable_view(answer)


def read_entry(message: memoryview) -> Received:
    """Return the entry of a GetHuman, GetGarment or GetText answer. Raises UnreadableAnswer."""
    if len(message) <= SMALL_ANSWER_BYTES:
        # The three answers with one entry are alike on the wire.
        answer = _parsed(cache_pb2.GetHumanResponse, message).entry
        if answer.WhichOneof("payload") == "file":
            return _received_file(answer.info, answer.file, answer.boot_id)
    (entry,) = _entries(message, 1)
    return _received(entry)


def read_tryon(message: memoryview) -> ReceivedTryOn:
    """Return the entries of a GetTryOn answer. Raises UnreadableAnswer."""
    human, garment, text = _entries(message, 3)
    return ReceivedTryOn(_received(human), _received(garment), _received(text))


def read_attachment(message: memoryview) -> Attachment:
    answer = _parsed(cache_pb2.AttachResponse, message)
    return Attachment(answer.runtime_dir, answer.boot_id)


def read_report(message: memoryview) -> int:
    return _parsed(cache_pb2.ReportHitsResponse, message).counted


def read_put(message: memoryview) -> EntryInfo:
    return _info(_parsed(cache_pb2.PutResponse, message).info)


def read_check(message: memoryview) -> bool:
    """Return whether L2 would take the entry."""
    return not _parsed(cache_pb2.PutResponse, message).memory_only


def read_inspection(message: memoryview) -> Inspection:
    answer = _parsed(cache_pb2.InspectResponse, message)
    tiers = tuple(
        InspectedTier(
            tier=_tier(found.tier),
            info=_info(found.info),
            owner_id=found.owner_id,
            age=found.age.ToTimedelta(),
            expires_in=found.expires_in.ToTimedelta(),
            accesses=found.accesses,
        )
        for found in answer.tiers
    )
    return Inspection(_key(answer.key), tiers, answer.filling)


def read_invalidated(message: memoryview) -> Invalidated:
    answer = _parsed(cache_pb2.InvalidateResponse, message)
    at = _time(answer.invalidated_at) if answer.HasField("invalidated_at") else None
    return Invalidated(answer.removed_count, at)


def read_progress(message: memoryview) -> WarmProgress:
    answer = _parsed(cache_pb2.WarmResponse, message)
    failed = None
    if answer.HasField("failed"):
        failed = WarmFailure(_key(answer.failed.key), answer.failed.reason)
    return WarmProgress(answer.done, answer.total, failed)


def read_stats(message: memoryview) -> cache_pb2.StatsResponse:
    return _parsed(cache_pb2.StatsResponse, message)


class StreamedEntry:
    """Joins the messages of a Get stream: info first, then data in order."""

    def __init__(self, kind_version: str = "") -> None:
        self._kind_version = kind_version
        self._info: EntryInfo | None = None
        self._blob = bytearray()

    def add(self, message: memoryview) -> None:
        """Take the next message.

        Raises UnreadableAnswer for data that info did not announce, and PreconditionFailed for
        another version.
        """
        part = _parsed(cache_pb2.GetResponse, message)
        if part.HasField("info"):
            # A second attempt also begins with info: drop the data of the broken stream.
            self._info, self._blob = _info(part.info), bytearray()
            self._check_version(self._info.kind_version)
            return
        self._blob += part.data
        if self._info is None or len(self._blob) > self._info.size_bytes:
            raise UnreadableAnswer("the stream has data that its info did not announce")

    def _check_version(self, version: str) -> None:
        # A daemon of the first release ignores the request's version.
        if self._kind_version and self._kind_version != version:
            raise PreconditionFailed(
                f"the entry has version {clipped(version)}, and the call expects "
                f"{clipped(self._kind_version)}",
                reason="KIND_VERSION_MISMATCH",
            )

    def finished(self) -> Received:
        """Return the entry. Raises UnreadableAnswer if the stream ended too early."""
        if self._info is None or len(self._blob) != self._info.size_bytes:
            raise UnreadableAnswer("the stream ended before the entry was whole")
        return Received(self._info, memoryview(self._blob))


def _entries(message: memoryview, count: int) -> list[RawEntry]:
    try:
        return read_entries(message, count)
    except WireError as exc:
        raise UnreadableAnswer("the answer is not a protobuf message") from exc


def _received(entry: RawEntry) -> Received:
    info = _parsed(cache_pb2.EntryInfo, entry.info)
    if entry.tensors is not None:
        tensors = entry.tensors
        if tensors.readonly:
            tensors = memoryview(bytearray(tensors))
        return Received(_info(info), tensors, None, entry.boot_id)
    if not entry.file:
        raise UnreadableAnswer("the entry came in a form that this client does not know")
    return _received_file(info, _parsed(cache_pb2.SharedFile, entry.file), entry.boot_id)


def _received_file(
    info: cache_pb2.EntryInfo, file: cache_pb2.SharedFile, boot_id: bytes
) -> Received:
    shared = SharedFile(
        name=file.name,
        expires_in_ns=_ns(file.expires_in),
        origin_ns=_ns(info.origin_time),
        grace_ns=_ns(file.origin_grace),
    )
    return Received(info, None, shared, boot_id)


def _ns(span: Duration | Timestamp) -> int:
    return span.seconds * 1_000_000_000 + span.nanos


def _parsed(kind: type[_M], data: memoryview | bytes) -> _M:
    try:
        return kind.FromString(bytes(data))
    except DecodeError as exc:
        raise UnreadableAnswer(f"the answer is not a {kind.__name__}") from exc


def info_of(info: EntryInfo | cache_pb2.EntryInfo) -> EntryInfo:
    """Return an entry's description as a plain value."""
    return info if isinstance(info, EntryInfo) else _info(info)


def _info(info: cache_pb2.EntryInfo) -> EntryInfo:
    return EntryInfo(
        key=_key(info.key),
        tier=_tier(info.tier),
        filled_at=_time(info.filled_at) if info.HasField("filled_at") else None,
        expires_at=_time(info.expires_at) if info.HasField("expires_at") else None,
        origin_time=_time(info.origin_time) if info.HasField("origin_time") else None,
        **{name: getattr(info, name) for name in _PLAIN_FIELDS},
    )


def _key(key: cache_pb2.EntryKey) -> EntryKey:
    return EntryKey(key.namespace, key.id)


def _tier(number: int) -> Tier:
    return _TIERS.get(number, Tier.UNKNOWN)


def _time(stamp: Timestamp) -> datetime:
    # Stamp.ToDatetime does the same in 4 us; an entry has three.
    return _EPOCH + timedelta(seconds=stamp.seconds, microseconds=stamp.nanos // 1000)
