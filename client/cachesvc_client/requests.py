"""Turns each method's arguments into one serialized call.

The sync, the asyncio and the in-memory clients share it, so that all send the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from cachesvc_client import _reading, answers
from cachesvc_client._arguments import WRONG_TYPE, Category, check, check_as, refuse
from cachesvc_client._blob import cut
from cachesvc_client._values import fields_of
from cachesvc_client._version import __version__
from cachesvc_client.errors import InvalidRequest
from cachesvc_format.blob import BlobError, Buffer, blob_parts
from cachesvc_format.namespaces import HUMAN_NAMESPACES
from cachesvc_format.wire import tag, varint
from cachesvc_proto.v1 import cache_pb2

A = TypeVar("A")

SERVICE = "cachesvc.v1.CacheService"
# The contract's limit for one message of a stream.
CHUNK_BYTES = 1024 * 1024
# The daemon's limit for one report.
MAX_REPORTED_KEYS = 1000

CATEGORIES: dict[Category, cache_pb2.HumanCategory] = {
    "upper_body": cache_pb2.HUMAN_CATEGORY_UPPER_BODY,
    "lower_body": cache_pb2.HUMAN_CATEGORY_LOWER_BODY,
    "dresses": cache_pb2.HUMAN_CATEGORY_DRESSES,
}
# By whether shared files can be used.
DELIVERIES = {False: cache_pb2.DELIVERY_INLINE, True: cache_pb2.DELIVERY_SHARED_FILE}
_DATA_TAG = tag(cache_pb2.PutRequest.DATA_FIELD_NUMBER)


@dataclass(frozen=True)
class Call(Generic[A]):
    """One call: the method's name, its serialized request, and the reader of its answer.

    `asked_for` becomes NotCached's `missing`. A streamed answer is read message by message.
    """

    method: str
    request: bytes
    read: Callable[[memoryview], A]
    asked_for: str = ""

    @property
    def path(self) -> str:
        return f"/{SERVICE}/{self.method}"


@dataclass(frozen=True)
class Upload(Generic[A]):
    """A call whose request is a stream; each attempt calls `messages()` again."""

    call: Call[A]
    pieces: tuple[Buffer, ...]

    def messages(self) -> Iterator[bytes]:
        """Yield the header, then the blob in messages of at most 1 MiB of data."""
        yield self.call.request
        for data in cut(self.pieces, CHUNK_BYTES):
            # Frame the chunk here: protobuf would copy it twice more.
            yield b"".join((_DATA_TAG, varint(len(data)), data))


class Ask(Protocol[A]):
    """Builds a Get, for shared files or for inline bytes."""

    def __call__(self, *, shared: bool) -> Call[A]: ...


class TryOnKey(NamedTuple):
    """One try-on to come. `owner_id` is the garment's owner; empty means `user_id`."""

    user_id: str
    clothing_id: str
    category: Category = "upper_body"
    owner_id: str = ""


class PutOptions(NamedTuple):
    """How a Put is kept: see `CacheClient.put_human`."""

    owner_id: str = ""
    as_of: datetime | None = None
    ttl: timedelta | None = None
    persist: bool = False


def one_of(options: PutOptions | None, keywords: PutOptions) -> PutOptions:
    """Return how a Put is kept. Raises InvalidRequest if both ways to say it were used."""
    if options is None:
        return keywords
    check({"options": options})
    if keywords != PutOptions():
        raise InvalidRequest(
            "give owner_id, as_of, ttl, persist as keywords, or all of them as options, not both",
            reason="WRONG_VALUE",
        )
    return options


def get_human(
    user_id: str,
    category: Category,
    origin_after: datetime | None,
    kind_version: str,
    *,
    shared: bool = False,
) -> Call[_reading.Received]:
    check(locals())
    request = cache_pb2.GetHumanRequest(
        user_id=user_id,
        category=CATEGORIES[category],
        delivery=DELIVERIES[shared],
        origin_after=timestamp(origin_after, "origin_after"),
        kind_version=kind_version,
    )
    return Call("GetHuman", request.SerializeToString(), _reading.read_entry, "human")


def get_garment(
    clothing_id: str,
    owner_id: str,
    origin_after: datetime | None,
    kind_version: str,
    *,
    shared: bool = False,
) -> Call[_reading.Received]:
    check(locals())
    request = cache_pb2.GetGarmentRequest(
        clothing_id=clothing_id,
        owner_id=owner_id,
        delivery=DELIVERIES[shared],
        origin_after=timestamp(origin_after, "origin_after"),
        kind_version=kind_version,
    )
    return Call("GetGarment", request.SerializeToString(), _reading.read_entry, "garment")


def get_text(
    clothing_id: str,
    owner_id: str,
    origin_after: datetime | None,
    kind_version: str,
    *,
    shared: bool = False,
) -> Call[_reading.Received]:
    check(locals())
    request = cache_pb2.GetTextRequest(
        clothing_id=clothing_id,
        owner_id=owner_id,
        delivery=DELIVERIES[shared],
        origin_after=timestamp(origin_after, "origin_after"),
        kind_version=kind_version,
    )
    return Call("GetText", request.SerializeToString(), _reading.read_entry, "text")


def get_tryon(
    key: TryOnKey,
    origin_after: datetime | None,
    kind_versions: Mapping[str, str] | None,
    *,
    shared: bool = False,
) -> Call[_reading.ReceivedTryOn]:
    check(key._asdict())
    check({"origin_after": origin_after, "kind_versions": kind_versions})
    versions = kind_versions or {}
    request = cache_pb2.GetTryOnRequest(
        user_id=key.user_id,
        category=CATEGORIES[key.category],
        clothing_id=key.clothing_id,
        owner_id=key.owner_id,
        delivery=DELIVERIES[shared],
        origin_after=timestamp(origin_after, "origin_after"),
        human_kind_version=versions.get("human", ""),
        garment_kind_version=versions.get("garment", ""),
        text_kind_version=versions.get("text", ""),
    )
    return Call("GetTryOn", request.SerializeToString(), _reading.read_tryon)


def get(
    namespace: str, id: str, owner_id: str, origin_after: datetime | None, kind_version: str
) -> Call[_reading.StreamedEntry]:
    check(locals())
    entry = _reading.StreamedEntry(kind_version)

    def read(message: memoryview) -> _reading.StreamedEntry:
        entry.add(message)
        return entry

    request = cache_pb2.GetRequest(
        key=cache_pb2.EntryKey(namespace=namespace, id=id),
        owner_id=owner_id,
        origin_after=timestamp(origin_after, "origin_after"),
        kind_version=kind_version,
    )
    return Call("Get", request.SerializeToString(), read, namespace)


def put(
    namespace: str, id: str, fields: Mapping[str, object], options: PutOptions
) -> Upload[answers.EntryInfo]:
    """Return the Put. Raises InvalidRequest for a value that a blob cannot hold."""
    check(locals())
    check(options._asdict())
    # Set `as_of` once, so that a retry does not look newer than its bytes: the first attempt may
    # have been stored, and invalidated, before the second arrives.
    as_of = options.as_of or datetime.now(timezone.utc)
    header = cache_pb2.PutRequest(
        header=cache_pb2.PutHeader(
            key=cache_pb2.EntryKey(namespace=namespace, id=id),
            owner_id=options.owner_id,
            as_of=timestamp(as_of, "as_of"),
            ttl=_duration(options.ttl),
            persist=options.persist,
        )
    )
    try:
        pieces = blob_parts(fields_of(fields))
    except BlobError as exc:
        raise InvalidRequest(str(exc), reason="INVALID_BLOB") from exc
    return Upload(Call("Put", header.SerializeToString(), _reading.read_put), tuple(pieces))


def check_put(
    namespace: str, id: str, fields: Mapping[str, object], options: PutOptions
) -> Upload[bool]:
    """Return the Put that stores nothing. Raises InvalidRequest as `put`."""
    upload = put(namespace, id, fields, options)
    header = cache_pb2.PutRequest.FromString(upload.call.request).header
    request = cache_pb2.PutRequest(check=header).SerializeToString()
    return Upload(Call("Put", request, _reading.read_check), upload.pieces)


def put_human(
    user_id: str, category: Category, fields: Mapping[str, object], options: PutOptions
) -> Upload[answers.EntryInfo]:
    """As `put`, for fields whose types are known. Raises InvalidRequest."""
    check({"user_id": user_id, "category": category, **fields})
    return put(HUMAN_NAMESPACES[category], user_id, fields, options)


def put_clothing(
    namespace: str, clothing_id: str, fields: Mapping[str, object], options: PutOptions
) -> Upload[answers.EntryInfo]:
    """As `put`, for fields whose types are known. Raises InvalidRequest."""
    check({"clothing_id": clothing_id, **fields})
    return put(namespace, clothing_id, fields, options)


def invalidate(
    target: Mapping[str, str | tuple[str, str] | bool | None],
    changed_at: datetime | None,
    erase: bool,
) -> Call[answers.Invalidated]:
    """Return the call. Raises InvalidRequest unless exactly one target is given."""
    check({"changed_at": changed_at, "erase": erase})
    # None and False mean "not this target".
    given = {
        name: value for name, value in target.items() if value is not None and value is not False
    }
    if len(given) != 1:
        named = f", not {' and '.join(given)}" if given else ""
        raise InvalidRequest(
            f"give exactly one of {', '.join(target)}{named}", reason="MISSING_FIELD"
        )
    request = cache_pb2.InvalidateRequest(
        changed_at=timestamp(changed_at, "changed_at"), erase=erase
    )
    ((name, value),) = given.items()
    # An entry's owner may be empty, a target may not.
    check_as("id" if name == "owner_id" else name, value, name)
    if name == "key":
        namespace, id = value  # type: ignore[misc,str-unpack]
        check_as("namespace", namespace, "key: namespace")
        check_as("id", id, "key: id")
        request.key.namespace, request.key.id = namespace, id
    else:
        setattr(request, name, value)
    return Call("Invalidate", request.SerializeToString(), _reading.read_invalidated)


def warm(
    user_id: str, categories: Iterable[Category], garments: Iterable[str | tuple[str, str]]
) -> Call[answers.WarmProgress]:
    check(locals(), empty=("user_id",))
    request = cache_pb2.WarmRequest(user_id=user_id)
    for place, category in enumerate(categories):
        check_as("category", category, f"categories[{place}]")
        request.categories.append(CATEGORIES[category])
    for place, garment in enumerate(garments):
        clothing_id, owner_id = _garment(f"garments[{place}]", garment)
        request.garments.add(clothing_id=clothing_id, owner_id=owner_id)
    return Call("Warm", request.SerializeToString(), _reading.read_progress)


def warm_tryons(tryons: Iterable[TryOnKey | tuple[str, ...]]) -> list[Call[answers.WarmProgress]]:
    """Return one Warm for each person, in order of first appearance, each key once."""
    check(locals())
    by_user: dict[str, tuple[dict[Category, None], dict[tuple[str, str], None]]] = {}
    for place, tryon in enumerate(tryons):
        key = _tryon(f"tryons[{place}]", tryon)
        categories, garments = by_user.setdefault(key.user_id, ({}, {}))
        categories[key.category] = None
        garments[key.clothing_id, key.owner_id] = None
    return [warm(user, [*parts], [*garments]) for user, (parts, garments) in by_user.items()]


def attach() -> Call[_reading.Attachment]:
    request = cache_pb2.AttachRequest(client_version=__version__)
    return Call("Attach", request.SerializeToString(), _reading.read_attachment)


def report_hits(hits: Sequence[tuple[str, str, int, int]]) -> Iterator[Call[int]]:
    """Yield the calls that report (namespace, id, generation, hits) of local hits.

    The daemon limits the keys of one call.
    """
    for at in range(0, len(hits), MAX_REPORTED_KEYS):
        request = cache_pb2.ReportHitsRequest()
        for namespace, entry_id, generation, count in hits[at : at + MAX_REPORTED_KEYS]:
            hit = request.hits.add(generation=generation, count=count)
            hit.key.namespace, hit.key.id = namespace, entry_id
        yield Call("ReportHits", request.SerializeToString(), _reading.read_report)


def inspect(namespace: str, id: str) -> Call[answers.Inspection]:
    check(locals())
    request = cache_pb2.InspectRequest(key=cache_pb2.EntryKey(namespace=namespace, id=id))
    return Call("Inspect", request.SerializeToString(), _reading.read_inspection)


def stats() -> Call[cache_pb2.StatsResponse]:
    return Call("Stats", cache_pb2.StatsRequest().SerializeToString(), _reading.read_stats)


def timestamp(moment: datetime | None, name: str) -> Timestamp | None:
    """Return a protobuf time of a checked moment. Raises InvalidRequest if it is out of range."""
    if moment is None:
        return None
    stamp = Timestamp()
    try:
        stamp.FromDatetime(moment)
    except (OverflowError, ValueError) as exc:
        raise InvalidRequest(f"{name} must be from 1970 to 2262", reason="INVALID_TIME") from exc
    return stamp


def _duration(time: timedelta | None) -> Duration | None:
    if time is None:
        return None
    duration = Duration()
    duration.FromTimedelta(time)
    return duration


def _garment(place: str, garment: object) -> tuple[str, str]:
    """Return clothing_id and owner_id. Raises InvalidRequest."""
    expected = "a clothing_id, or (clothing_id, owner_id)"
    pair = (garment, "") if isinstance(garment, str) else _parts(place, garment, expected, 2, 2)
    clothing_id, owner_id = pair
    check_as("clothing_id", clothing_id, f"{place}: clothing_id")
    check_as("owner_id", owner_id, f"{place}: owner_id")
    return clothing_id, owner_id


def _tryon(place: str, tryon: object) -> TryOnKey:
    """Return a checked try-on. Raises InvalidRequest."""
    expected = "(user_id, clothing_id[, category[, owner_id]])"
    key = TryOnKey(*_parts(place, tryon, expected, 2, 4))
    for name, value in key._asdict().items():
        check_as(name, value, f"{place}: {name}")
    return key


def _parts(place: str, value: object, expected: str, least: int, most: int) -> Sequence[Any]:
    """Return a tuple or list of `least` to `most` parts. Raises InvalidRequest."""
    if not isinstance(value, (tuple, list)):
        raise refuse(place, expected, value)
    if not least <= len(value) <= most:
        raise InvalidRequest(
            f"{place} must be {expected}, and has {len(value)} parts", reason=WRONG_TYPE
        )
    return value
