"""Implements the contract of `cache.proto` with dicts, for the in-memory clients.

It takes and returns serialized messages, so all of the real client but its connection is used.
There is no origin: a key that was not put is absent.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import NoReturn

import grpc
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from cachesvc_client._arguments import check, check_settings
from cachesvc_client._failures import Failures
from cachesvc_client.errors import DETAIL_KEY, REASON_KEY, CacheServiceError
from cachesvc_format.blob import BlobError, read_layout
from cachesvc_format.names import clipped, is_id
from cachesvc_format.namespaces import CLOTHING_NAMESPACES, FIELDS, HUMAN_NAMESPACES
from cachesvc_proto.v1 import cache_pb2

DEFAULT_TTL = timedelta(hours=24)
# S3's clock has whole seconds; the daemon allows the same grace.
ORIGIN_GRACE = timedelta(seconds=2)
CHUNK_BYTES = 1024 * 1024

# By the category's number, from 1.
_HUMAN = tuple(HUMAN_NAMESPACES.values())
# The order in which a try-on with several failures chooses its code.
_PART_PRECEDENCE = (
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
)

Key = tuple[str, str]


class Refusal(Exception):
    """A status other than OK."""

    def __init__(self, code: grpc.StatusCode, reason: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.message = message
        self.detail = cache_pb2.ErrorDetail(reason=reason)

    @property
    def metadata(self) -> tuple[tuple[str, str | bytes], ...]:
        return (REASON_KEY, self.reason), (DETAIL_KEY, self.detail.SerializeToString())


@dataclass
class _Stored:
    info: cache_pb2.EntryInfo
    blob: bytes
    owner_id: str
    as_of: datetime
    expires_at: datetime
    accesses: int = 0


@dataclass
class _Counts:
    memory_hits: int = 0
    not_found: int = 0
    failed: int = 0
    puts: int = 0
    invalidations: int = 0


@dataclass
class MemoryService:
    """Answers calls from dicts. Safe for use from many threads.

    `extra_fields` adds namespaces of other kinds: namespace to field names.
    `kind_version` is the version of every stored entry.
    """

    extra_fields: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    kind_version: str = ""

    def __post_init__(self) -> None:
        check_settings({"extra_fields": self.extra_fields, "kind_version": self.kind_version})
        self.failures = Failures()
        self._fields = {**FIELDS, **self.extra_fields}
        self._entries: dict[Key, _Stored] = {}
        # By target, not by entry: a change also counts for keys that are not cached.
        self._changed_at: dict[tuple[str, Key | str], datetime] = {}
        self._generation = time.time_ns()
        self._counts = _Counts()
        self._started_at = _now()
        self._lock = threading.RLock()
        self._unary: dict[str, Callable[[bytes], Message]] = {
            "GetHuman": self._get_human,
            "GetGarment": self._get_garment,
            "GetText": self._get_text,
            "GetTryOn": self._get_tryon,
            "Invalidate": self._invalidate,
            "Inspect": self._inspect,
            "Stats": self._stats,
        }
        self._streams: dict[str, Callable[[bytes], Iterator[Message]]] = {
            "Get": self._get,
            "Warm": self._warm,
        }

    def __repr__(self) -> str:
        return f"<MemoryService with {len(self._entries)} entries>"

    def fail(self, error: CacheServiceError, *, method: str = "", times: int = 1) -> None:
        """Let the next `times` calls of `method` (by default of any method) raise `error`.

        `error` is any that docs/errors.md names, with its reason:
        `OriginUnavailable("S3 is away", reason="ORIGIN_TIMEOUT")`. `put` stands for all puts, and
        `warm` also for prefetch. Failures that were planned first are raised first. Raises
        InvalidRequest.
        """
        check({"error": error, "method": method, "times": times})
        self.failures.plan(error, method, times)

    def recover(self) -> None:
        """Forget the failures that are still planned."""
        self.failures.clear()

    @property
    def unary_methods(self) -> tuple[str, ...]:
        return tuple(self._unary)

    @property
    def stream_methods(self) -> tuple[str, ...]:
        return tuple(self._streams)

    def answer(self, method: str, request: bytes) -> bytes:
        """Return the serialized answer of a call with one answer. Raises Refusal."""
        with self._lock:
            return self._unary[method](request).SerializeToString()

    def stream(self, method: str, request: bytes) -> Iterator[bytes]:
        """Yield the serialized messages of a streamed answer. Raises Refusal."""
        with self._lock:
            messages = list(self._streams[method](request))
        for message in messages:
            yield message.SerializeToString()

    def put(self, messages: Iterable[bytes]) -> bytes:
        """Take a streamed request and return the serialized answer. Raises Refusal."""
        parts = [cache_pb2.PutRequest.FromString(message) for message in messages]
        part = parts[0].WhichOneof("part") if parts else None
        if part not in ("header", "check"):
            _refuse("INVALID_ARGUMENT", "MISSING_FIELD", "the header must come first")
        header, arrived = getattr(parts[0], part), _now()
        key = self._checked(header.key)
        blob = b"".join(part.data for part in parts[1:])
        self._check_blob(key, blob)
        as_of = min(_time(header.as_of), arrived) if header.HasField("as_of") else arrived
        with self._lock:
            if as_of < self._last_change(key, header.owner_id, as_of):
                _refuse("ABORTED", "PUT_OUTDATED", "the source has changed since it was read")
            if part == "check":
                return cache_pb2.PutResponse().SerializeToString()
            info = self._store(key, blob, header, as_of)
        return cache_pb2.PutResponse(info=info).SerializeToString()

    def _store(
        self, key: Key, blob: bytes, header: cache_pb2.PutHeader, as_of: datetime
    ) -> cache_pb2.EntryInfo:
        ttl = header.ttl.ToTimedelta() if header.HasField("ttl") else DEFAULT_TTL
        self._generation += 1
        expires_at = _now() + ttl
        info = cache_pb2.EntryInfo(
            key=header.key,
            size_bytes=len(blob),
            etag=f"put-{self._generation}",
            generation=self._generation,
            filled_at=_stamp(as_of),
            expires_at=_stamp(expires_at),
            origin_time=_stamp(as_of),
            format_version=1,
            kind_version=self.kind_version,
        )
        self._entries[key] = _Stored(info, blob, header.owner_id, as_of, expires_at)
        self._counts.puts += 1
        return info

    def _check_blob(self, key: Key, blob: bytes) -> None:
        try:
            names = set(read_layout(memoryview(blob), len(blob)).fields)
        except BlobError as exc:
            _refuse("INVALID_ARGUMENT", "INVALID_BLOB", str(exc))
        if names != set(self._fields[key[0]]):
            _refuse("INVALID_ARGUMENT", "INVALID_BLOB", "the fields are not the kind's")

    def _get_human(self, request: bytes) -> Message:
        asked = cache_pb2.GetHumanRequest.FromString(request)
        key = (_human_namespace(asked.category), _checked_id(asked.user_id, "user_id"))
        found = self._served(key, asked.user_id, _after(asked), asked.kind_version)
        return cache_pb2.GetHumanResponse(entry=found)

    def _get_garment(self, request: bytes) -> Message:
        asked = cache_pb2.GetGarmentRequest.FromString(request)
        return cache_pb2.GetGarmentResponse(entry=self._clothing("garment", asked))

    def _get_text(self, request: bytes) -> Message:
        asked = cache_pb2.GetTextRequest.FromString(request)
        return cache_pb2.GetTextResponse(entry=self._clothing("text", asked))

    def _clothing(
        self, namespace: str, asked: cache_pb2.GetGarmentRequest | cache_pb2.GetTextRequest
    ) -> cache_pb2.Entry:
        key = (namespace, _checked_id(asked.clothing_id, "clothing_id"))
        return self._served(key, asked.owner_id, _after(asked), asked.kind_version)

    def _get_tryon(self, request: bytes) -> Message:
        asked = cache_pb2.GetTryOnRequest.FromString(request)
        namespace = _human_namespace(asked.category)
        user_id = _checked_id(asked.user_id, "user_id")
        clothing_id = _checked_id(asked.clothing_id, "clothing_id")
        owner_id = asked.owner_id or user_id
        wanted = {
            "human": ((namespace, user_id), _after(asked), asked.human_kind_version),
            "garment": (("garment", clothing_id), None, asked.garment_kind_version),
            "text": (("text", clothing_id), None, asked.text_kind_version),
        }
        found: dict[str, cache_pb2.Entry] = {}
        refused: dict[str, Refusal] = {}
        for part, (key, after, version) in wanted.items():
            try:
                found[part] = self._served(key, owner_id, after, version)
            except Refusal as refusal:  # noqa: PERF203 - each part ends on its own
                refused[part] = refusal
        if refused:
            raise _refusal_of_parts(refused)
        return cache_pb2.GetTryOnResponse(**found)

    def _get(self, request: bytes) -> Iterator[Message]:
        asked = cache_pb2.GetRequest.FromString(request)
        key = self._checked(asked.key)
        owner_id = _owner(key, asked.owner_id)
        entry = self._served(key, owner_id, _after(asked), asked.kind_version)
        yield cache_pb2.GetResponse(info=entry.info)
        for at in range(0, len(entry.tensors), CHUNK_BYTES):
            yield cache_pb2.GetResponse(data=entry.tensors[at : at + CHUNK_BYTES])

    def _served(
        self, key: Key, owner_id: str, after: datetime | None, version: str
    ) -> cache_pb2.Entry:
        if version and version != self.kind_version:
            self._counts.failed += 1
            own = f"version {clipped(self.kind_version)}" if self.kind_version else "no version"
            text = f"the stand-in has {own}, and the call expects {clipped(version)}"
            _refuse("FAILED_PRECONDITION", "KIND_VERSION_MISMATCH", text)
        stored = self._live(key)
        if stored is None or (after is not None and _is_older(stored.as_of, after)):
            self._counts.not_found += 1
            if not owner_id:
                _refuse("FAILED_PRECONDITION", "OWNER_REQUIRED", "a miss needs the owner")
            _refuse("NOT_FOUND", "NO_SUCH_OBJECT", f"there is no such {key[0]}")
        stored.accesses += 1
        self._counts.memory_hits += 1
        info = cache_pb2.EntryInfo()
        info.CopyFrom(stored.info)
        info.tier = cache_pb2.TIER_MEMORY
        return cache_pb2.Entry(info=info, tensors=stored.blob)

    def _live(self, key: Key) -> _Stored | None:
        stored = self._entries.get(key)
        if stored is not None and stored.expires_at <= _now():
            del self._entries[key]
            return None
        return stored

    def _invalidate(self, request: bytes) -> Message:
        asked, arrived = cache_pb2.InvalidateRequest.FromString(request), _now()
        keys = self._targets(asked)
        changed_at = arrived
        if asked.HasField("changed_at"):
            changed_at = min(_time(asked.changed_at), arrived)
        for target in _change_targets(asked, keys):
            self._changed_at[target] = max(changed_at, self._changed_at.get(target, changed_at))
        removed = sum(self._entries.pop(key, None) is not None for key in keys)
        self._counts.invalidations += 1
        return cache_pb2.InvalidateResponse(removed_count=removed, invalidated_at=_stamp(arrived))

    def _last_change(self, key: Key, owner_id: str, never: datetime) -> datetime:
        owner = _owner(key, owner_id)
        targets = (("key", key), ("namespace", key[0]), ("everything", ""), ("owner_id", owner))
        return max(self._changed_at.get(target, never) for target in targets)

    def _targets(self, asked: cache_pb2.InvalidateRequest) -> list[Key]:
        target = asked.WhichOneof("target")
        if target == "user_id":
            return [(name, _checked_id(asked.user_id, target)) for name in _HUMAN]
        if target == "clothing_id":
            return [(name, _checked_id(asked.clothing_id, target)) for name in CLOTHING_NAMESPACES]
        if target == "key":
            return [self._checked(asked.key)]
        if target == "owner_id":
            owner = _checked_id(asked.owner_id, target)
            return [
                key
                for key, stored in self._entries.items()
                if _owner(key, stored.owner_id) == owner
            ]
        if target == "namespace":
            self._check_namespace(asked.namespace)
            return [key for key in self._entries if key[0] == asked.namespace]
        if not asked.everything:
            _refuse("INVALID_ARGUMENT", "MISSING_FIELD", "no target")
        return list(self._entries)

    def _warm(self, request: bytes) -> Iterator[Message]:
        asked = cache_pb2.WarmRequest.FromString(request)
        keys: list[Key] = []
        if asked.user_id:
            user_id = _checked_id(asked.user_id, "user_id")
            names = [_human_namespace(category) for category in asked.categories]
            keys += [(name, user_id) for name in names or _HUMAN]
        for garment in asked.garments:
            clothing_id = _checked_id(garment.clothing_id, "clothing_id")
            keys += [(name, clothing_id) for name in CLOTHING_NAMESPACES]
        yield cache_pb2.WarmResponse(done=0, total=len(keys))
        for done, (namespace, id) in enumerate(keys, start=1):
            progress = cache_pb2.WarmResponse(done=done, total=len(keys))
            if self._live((namespace, id)) is None:
                progress.failed.key.namespace = namespace
                progress.failed.key.id = id
                progress.failed.reason = "NO_SUCH_OBJECT"
            yield progress

    def _inspect(self, request: bytes) -> Message:
        asked = cache_pb2.InspectRequest.FromString(request)
        stored = self._live(self._checked(asked.key))
        answer = cache_pb2.InspectResponse(key=asked.key)
        if stored is not None:
            tier = answer.tiers.add(
                tier=cache_pb2.TIER_MEMORY,
                info=stored.info,
                owner_id=stored.owner_id,
                accesses=stored.accesses,
            )
            tier.age.FromTimedelta(_now() - stored.as_of)
            tier.expires_in.FromTimedelta(stored.expires_at - _now())
        return answer

    def _stats(self, request: bytes) -> Message:
        counts = self._counts
        answer = cache_pb2.StatsResponse(
            started_at=_stamp(self._started_at),
            version="in-memory",
            requests=cache_pb2.RequestStats(
                memory_hits=counts.memory_hits, not_found=counts.not_found, failed=counts.failed
            ),
            puts=counts.puts,
            invalidations=counts.invalidations,
        )
        for name in self._fields:
            sizes = [len(s.blob) for key, s in self._entries.items() if key[0] == name]
            answer.namespaces.add(
                namespace=name, memory_entries=len(sizes), memory_bytes=sum(sizes)
            )
        answer.memory.entries = len(self._entries)
        answer.memory.size_bytes = sum(len(stored.blob) for stored in self._entries.values())
        return answer

    def _checked(self, key: cache_pb2.EntryKey) -> Key:
        self._check_namespace(key.namespace)
        return key.namespace, _checked_id(key.id, "id")

    def _check_namespace(self, namespace: str) -> None:
        if namespace not in self._fields:
            _refuse("INVALID_ARGUMENT", "UNKNOWN_NAMESPACE", "unknown namespace")


def _refusal_of_parts(refused: Mapping[str, Refusal]) -> Refusal:
    first = min(refused.values(), key=lambda refusal: _PART_PRECEDENCE.index(refusal.code))
    whole = Refusal(first.code, first.reason, first.message)
    for part in ("human", "garment", "text"):
        status = whole.detail.parts.add(part=part)
        if part in refused:
            refusal = refused[part]
            status.code, status.reason = refusal.code.value[0], refusal.reason
            status.message = refusal.message
    return whole


def _refuse(code: str, reason: str, message: str) -> NoReturn:
    raise Refusal(grpc.StatusCode[code], reason, message)


def _checked_id(value: str, name: str) -> str:
    if not value:
        _refuse("INVALID_ARGUMENT", "MISSING_FIELD", f"{name} is empty")
    if not is_id(value):
        _refuse("INVALID_ARGUMENT", "INVALID_ID", f"{name} is not a valid id")
    return value


def _human_namespace(category: int) -> str:
    if not 1 <= category <= len(_HUMAN):
        _refuse("INVALID_ARGUMENT", "MISSING_FIELD", "category is not given")
    return _HUMAN[category - 1]


def _owner(key: Key, owner_id: str) -> str:
    return owner_id or (key[1] if key[0] in _HUMAN else "")


def _change_targets(
    asked: cache_pb2.InvalidateRequest, keys: list[Key]
) -> list[tuple[str, Key | str]]:
    """Return the targets for which an invalidation is remembered."""
    if asked.owner_id:
        return [("owner_id", asked.owner_id)]
    if asked.namespace:
        return [("namespace", asked.namespace)]
    if asked.everything:
        return [("everything", "")]
    return [("key", key) for key in keys]


def _after(
    asked: cache_pb2.GetHumanRequest
    | cache_pb2.GetGarmentRequest
    | cache_pb2.GetTextRequest
    | cache_pb2.GetTryOnRequest
    | cache_pb2.GetRequest,
) -> datetime | None:
    return _time(asked.origin_after) if asked.HasField("origin_after") else None


def _is_older(moment: datetime, after: datetime) -> bool:
    return moment + ORIGIN_GRACE < min(after, _now())


def _time(stamp: Timestamp) -> datetime:
    return stamp.ToDatetime(tzinfo=timezone.utc)


def _stamp(moment: datetime) -> Timestamp:
    stamp = Timestamp()
    stamp.FromDatetime(moment)
    return stamp


def _now() -> datetime:
    return datetime.now(timezone.utc)
