"""Translates between the contract's messages and the engine's values, and checks requests."""

from __future__ import annotations

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from cachesvc.core.clock import MAX_WALL_NS, NS_PER_S, Now
from cachesvc.core.entry import FORMAT_VERSION, EntryMeta
from cachesvc.core.errors import InvalidRequest
from cachesvc.core.keys import EntryKey, checked_id
from cachesvc.core.kinds import Kinds, Subject
from cachesvc.core.scopes import Scope, ScopeKind, key_scope, subject_scope
from cachesvc.core.tier import Tier
from cachesvc.engine.flight import Served
from cachesvc.engine.get import ReadRequest
from cachesvc.engine.put import PutHeader
from cachesvc_format import namespaces
from cachesvc_proto.v1 import cache_pb2 as pb

CATEGORIES = {
    "upper_body": pb.HUMAN_CATEGORY_UPPER_BODY,
    "lower_body": pb.HUMAN_CATEGORY_LOWER_BODY,
    "dresses": pb.HUMAN_CATEGORY_DRESSES,
}
HUMAN_NAMESPACES: dict[int, str] = {
    CATEGORIES[name]: namespace for name, namespace in namespaces.HUMAN_NAMESPACES.items()
}
TIERS: dict[Tier, pb.Tier] = {
    Tier.MEMORY: pb.TIER_MEMORY,
    Tier.DISK: pb.TIER_DISK,
    Tier.ORIGIN: pb.TIER_ORIGIN,
}
# More than L1 holds by default; a full cache is cleared.
MAX_DESCRIPTIONS = 1024
MAX_TTL_S = 366 * 24 * 3600


class RequestReader:
    """Turns requests into the engine's values. All methods raise InvalidRequest."""

    def __init__(self, kinds: Kinds) -> None:
        self._kinds = kinds

    # ---- Get

    def human(self, request: pb.GetHumanRequest | pb.GetTryOnRequest, version: str) -> ReadRequest:
        key = EntryKey(human_namespace(request.category), checked_id(request.user_id, "user_id"))
        return self._read(key, key.id, _origin_after(request), version)

    def clothing(
        self,
        namespace: str,
        request: pb.GetGarmentRequest | pb.GetTextRequest,
    ) -> ReadRequest:
        key = EntryKey(namespace, checked_id(request.clothing_id, "clothing_id"))
        owner = _optional_id(request.owner_id, "owner_id")
        return self._read(key, owner, _origin_after(request), request.kind_version)

    def try_on(self, request: pb.GetTryOnRequest) -> dict[str, ReadRequest]:
        """Return the reads of a try-on by the name of their part."""
        clothing_id = checked_id(request.clothing_id, "clothing_id")
        owner = checked_id(request.owner_id or request.user_id, "owner_id")
        garment, text = EntryKey("garment", clothing_id), EntryKey("text", clothing_id)
        return {
            "human": self.human(request, request.human_kind_version),
            "garment": self._read(garment, owner, 0, request.garment_kind_version),
            "text": self._read(text, owner, 0, request.text_kind_version),
        }

    def any(self, request: pb.GetRequest) -> ReadRequest:
        key = self.key(request.key)
        owner = self._owner(key, request.owner_id)
        return self._read(key, owner, _origin_after(request), request.kind_version)

    def warm(self, request: pb.WarmRequest) -> list[ReadRequest]:
        reads = []
        if request.user_id:
            user_id = checked_id(request.user_id, "user_id")
            for category in request.categories or HUMAN_NAMESPACES:
                key = EntryKey(human_namespace(category), user_id)
                reads.append(self._read(key, user_id, 0, ""))
        for garment in request.garments:
            clothing_id = checked_id(garment.clothing_id, "clothing_id")
            owner = checked_id(garment.owner_id or request.user_id, "owner_id")
            keys = [EntryKey(name, clothing_id) for name in namespaces.CLOTHING_NAMESPACES]
            reads += [self._read(key, owner, 0, "") for key in keys]
        if not reads:
            raise InvalidRequest("name a user_id or garments", reason="MISSING_FIELD")
        return list({read.key: read for read in reads}.values())

    def _read(self, key: EntryKey, owner: str, origin_after_ns: int, version: str) -> ReadRequest:
        kind = self._kinds.of(key.namespace)
        return ReadRequest(key, kind, owner, origin_after_ns, kind_version=version)

    # ---- the rest

    def key(self, key: pb.EntryKey) -> EntryKey:
        self._kinds.of(key.namespace)
        return EntryKey(key.namespace, checked_id(key.id, "id"))

    def put_header(self, header: pb.PutHeader) -> PutHeader:
        key = self.key(header.key)
        as_of_ns = _wall_ns(header.as_of, "as_of") if header.HasField("as_of") else None
        return PutHeader(
            key=key,
            kind=self._kinds.of(key.namespace),
            owner=self._owner(key, header.owner_id),
            as_of_ns=as_of_ns,
            ttl_s=_ttl_s(header.ttl) if header.HasField("ttl") else None,
            persist=header.persist,
        )

    def scope(self, request: pb.InvalidateRequest) -> Scope:
        match request.WhichOneof("target"):
            case "user_id":
                user_id = checked_id(request.user_id, "user_id")
                return subject_scope(Subject.USER, user_id, self._kinds)
            case "clothing_id":
                clothing_id = checked_id(request.clothing_id, "clothing_id")
                return subject_scope(Subject.CLOTHING, clothing_id, self._kinds)
            case "owner_id":
                return Scope(ScopeKind.OWNER, checked_id(request.owner_id, "owner_id"))
            case "key":
                return key_scope(self.key(request.key))
            case "namespace":
                self._kinds.of(request.namespace)
                return Scope(ScopeKind.NAMESPACE, request.namespace)
            case "everything" if request.everything:
                return Scope(ScopeKind.EVERYTHING)
        raise InvalidRequest(
            "name what to invalidate: user_id, clothing_id, owner_id, key, namespace or everything",
            reason="MISSING_FIELD",
        )

    def _owner(self, key: EntryKey, owner_id: str) -> str:
        """Return `owner_id`, or the person for a person's entry without `owner_id`."""
        kind = self._kinds.of(key.namespace)
        if not owner_id and kind.subject is Subject.USER:
            return key.id
        owner = _optional_id(owner_id, "owner_id")
        kind.check_owner(key.id, owner)
        return owner


def human_namespace(category: int) -> str:
    namespace = HUMAN_NAMESPACES.get(category)
    if namespace is None:
        raise InvalidRequest(
            "category must be UPPER_BODY, LOWER_BODY or DRESSES", reason="MISSING_FIELD"
        )
    return namespace


def entry_info(served: Served, now: Now) -> pb.EntryInfo:
    """Return an answer's description of its entry."""
    info = meta_info(served.meta)
    info.MergeFrom(lookup_info(served.tier, served.expires_ns, now, is_stale=served.is_stale))
    return info


def meta_info(meta: EntryMeta) -> pb.EntryInfo:
    """Return what `meta` alone decides."""
    return pb.EntryInfo(
        key=pb.EntryKey(namespace=meta.key.namespace, id=meta.key.id),
        size_bytes=meta.size_bytes,
        etag=meta.etag,
        generation=meta.generation,
        filled_at=timestamp(meta.begun_ns),
        format_version=FORMAT_VERSION,
        origin_time=timestamp(meta.origin_ns),
        kind_version=meta.kind_version,
    )


def lookup_info(tier: Tier, expires_ns: int, now: Now, *, is_stale: bool = False) -> pb.EntryInfo:
    """Return what two look-ups of one `EntryMeta` may find different. `expires_ns` is steady."""
    # Steady time means nothing on other hosts: add the time left to the wall time.
    expires_at = timestamp(now.wall_ns + expires_ns - now.steady_ns)
    return pb.EntryInfo(tier=TIERS[tier], expires_at=expires_at, stale=is_stale)


class Descriptions:
    """Caches the wire form of each `meta_info`, and encodes only `lookup_info` for each answer.

    A message's wire form may be the concatenation of two parts. `EntryMeta` is frozen, so what was
    encoded from one object stays true of that object. Comparing objects costs less than hashing
    their fields.
    """

    def __init__(self) -> None:
        self._known: dict[int, tuple[EntryMeta, bytes]] = {}

    def describe(self, served: Served, now: Now) -> bytes:
        """Return the wire form of `entry_info(served, now)`."""
        meta = served.meta
        known = self._known.get(meta.generation)
        if known is None or known[0] is not meta:
            if len(self._known) >= MAX_DESCRIPTIONS:
                self._known.clear()
            known = self._known[meta.generation] = (meta, meta_info(meta).SerializeToString())
        rest = lookup_info(served.tier, served.expires_ns, now, is_stale=served.is_stale)
        return known[1] + rest.SerializeToString()


def timestamp(wall_ns: int) -> Timestamp:
    seconds, nanos = divmod(wall_ns, NS_PER_S)
    return Timestamp(seconds=seconds, nanos=nanos)


def moment(wall_ns: int) -> str:
    """Return RFC 3339, for JSON."""
    return timestamp(wall_ns).ToJsonString()


def request_counts(requests: pb.RequestStats) -> dict[str, int]:
    """Return the counts of Gets by outcome, and their `total`, for JSON."""
    counts = {field.name: value for field, value in requests.ListFields()}
    every = {field.name: counts.get(field.name, 0) for field in requests.DESCRIPTOR.fields}
    return {**every, "total": sum(every.values())}


def duration(span_ns: int) -> Duration:
    """Return the span, at least 0."""
    seconds, nanos = divmod(max(0, span_ns), NS_PER_S)
    return Duration(seconds=seconds, nanos=nanos)


def changed_at_ns(request: pb.InvalidateRequest) -> int | None:
    return _wall_ns(request.changed_at, "changed_at") if request.HasField("changed_at") else None


def _origin_after(
    request: pb.GetHumanRequest
    | pb.GetGarmentRequest
    | pb.GetTextRequest
    | pb.GetTryOnRequest
    | pb.GetRequest,
) -> int:
    return _wall_ns(request.origin_after, "origin_after") if request.HasField("origin_after") else 0


def _wall_ns(moment: Timestamp, name: str) -> int:
    """Return nanoseconds since 1970, which have to fit the catalog's 63 bits."""
    try:
        wall_ns = moment.ToNanoseconds()
    except ValueError as exc:
        raise InvalidRequest(f"{name} is not a valid time", reason="INVALID_TIME") from exc
    if not 0 <= wall_ns <= MAX_WALL_NS:
        raise InvalidRequest(f"{name} must be from 1970 to 2262", reason="INVALID_TIME")
    return wall_ns


def _optional_id(value: str, name: str) -> str:
    return checked_id(value, name) if value else ""


def _ttl_s(ttl: Duration) -> float:
    try:
        seconds = ttl.ToNanoseconds() / NS_PER_S
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= MAX_TTL_S or not 0 <= ttl.nanos < NS_PER_S:
        raise InvalidRequest("ttl must be more than 0 and at most 366 days", reason="INVALID_TTL")
    return seconds
