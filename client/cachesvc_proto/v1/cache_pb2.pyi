from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class HumanCategory(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    HUMAN_CATEGORY_UNSPECIFIED: _ClassVar[HumanCategory]
    HUMAN_CATEGORY_UPPER_BODY: _ClassVar[HumanCategory]
    HUMAN_CATEGORY_LOWER_BODY: _ClassVar[HumanCategory]
    HUMAN_CATEGORY_DRESSES: _ClassVar[HumanCategory]

class Delivery(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DELIVERY_UNSPECIFIED: _ClassVar[Delivery]
    DELIVERY_INLINE: _ClassVar[Delivery]
    DELIVERY_SHARED_FILE: _ClassVar[Delivery]
    DELIVERY_NONE: _ClassVar[Delivery]

class Tier(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    TIER_UNSPECIFIED: _ClassVar[Tier]
    TIER_MEMORY: _ClassVar[Tier]
    TIER_DISK: _ClassVar[Tier]
    TIER_ORIGIN: _ClassVar[Tier]
HUMAN_CATEGORY_UNSPECIFIED: HumanCategory
HUMAN_CATEGORY_UPPER_BODY: HumanCategory
HUMAN_CATEGORY_LOWER_BODY: HumanCategory
HUMAN_CATEGORY_DRESSES: HumanCategory
DELIVERY_UNSPECIFIED: Delivery
DELIVERY_INLINE: Delivery
DELIVERY_SHARED_FILE: Delivery
DELIVERY_NONE: Delivery
TIER_UNSPECIFIED: Tier
TIER_MEMORY: Tier
TIER_DISK: Tier
TIER_ORIGIN: Tier

class EntryKey(_message.Message):
    __slots__ = ("namespace", "id")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    id: str
    def __init__(self, namespace: _Optional[str] = ..., id: _Optional[str] = ...) -> None: ...

class EntryInfo(_message.Message):
    __slots__ = ("key", "size_bytes", "tier", "etag", "generation", "filled_at", "expires_at", "format_version", "origin_time", "kind_version", "stale")
    KEY_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    TIER_FIELD_NUMBER: _ClassVar[int]
    ETAG_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    FILLED_AT_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_AT_FIELD_NUMBER: _ClassVar[int]
    FORMAT_VERSION_FIELD_NUMBER: _ClassVar[int]
    ORIGIN_TIME_FIELD_NUMBER: _ClassVar[int]
    KIND_VERSION_FIELD_NUMBER: _ClassVar[int]
    STALE_FIELD_NUMBER: _ClassVar[int]
    key: EntryKey
    size_bytes: int
    tier: Tier
    etag: str
    generation: int
    filled_at: _timestamp_pb2.Timestamp
    expires_at: _timestamp_pb2.Timestamp
    format_version: int
    origin_time: _timestamp_pb2.Timestamp
    kind_version: str
    stale: bool
    def __init__(self, key: _Optional[_Union[EntryKey, _Mapping]] = ..., size_bytes: _Optional[int] = ..., tier: _Optional[_Union[Tier, str]] = ..., etag: _Optional[str] = ..., generation: _Optional[int] = ..., filled_at: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., expires_at: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., format_version: _Optional[int] = ..., origin_time: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., kind_version: _Optional[str] = ..., stale: bool = ...) -> None: ...

class Entry(_message.Message):
    __slots__ = ("info", "tensors", "file", "boot_id", "padding")
    INFO_FIELD_NUMBER: _ClassVar[int]
    TENSORS_FIELD_NUMBER: _ClassVar[int]
    FILE_FIELD_NUMBER: _ClassVar[int]
    BOOT_ID_FIELD_NUMBER: _ClassVar[int]
    PADDING_FIELD_NUMBER: _ClassVar[int]
    info: EntryInfo
    tensors: bytes
    file: SharedFile
    boot_id: bytes
    padding: bytes
    def __init__(self, info: _Optional[_Union[EntryInfo, _Mapping]] = ..., tensors: _Optional[bytes] = ..., file: _Optional[_Union[SharedFile, _Mapping]] = ..., boot_id: _Optional[bytes] = ..., padding: _Optional[bytes] = ...) -> None: ...

class SharedFile(_message.Message):
    __slots__ = ("name", "expires_in", "origin_grace")
    NAME_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_IN_FIELD_NUMBER: _ClassVar[int]
    ORIGIN_GRACE_FIELD_NUMBER: _ClassVar[int]
    name: str
    expires_in: _duration_pb2.Duration
    origin_grace: _duration_pb2.Duration
    def __init__(self, name: _Optional[str] = ..., expires_in: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., origin_grace: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class GetHumanRequest(_message.Message):
    __slots__ = ("user_id", "category", "delivery", "origin_after", "kind_version")
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    CATEGORY_FIELD_NUMBER: _ClassVar[int]
    DELIVERY_FIELD_NUMBER: _ClassVar[int]
    ORIGIN_AFTER_FIELD_NUMBER: _ClassVar[int]
    KIND_VERSION_FIELD_NUMBER: _ClassVar[int]
    user_id: str
    category: HumanCategory
    delivery: Delivery
    origin_after: _timestamp_pb2.Timestamp
    kind_version: str
    def __init__(self, user_id: _Optional[str] = ..., category: _Optional[_Union[HumanCategory, str]] = ..., delivery: _Optional[_Union[Delivery, str]] = ..., origin_after: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., kind_version: _Optional[str] = ...) -> None: ...

class GetHumanResponse(_message.Message):
    __slots__ = ("entry",)
    ENTRY_FIELD_NUMBER: _ClassVar[int]
    entry: Entry
    def __init__(self, entry: _Optional[_Union[Entry, _Mapping]] = ...) -> None: ...

class GetGarmentRequest(_message.Message):
    __slots__ = ("clothing_id", "owner_id", "delivery", "origin_after", "kind_version")
    CLOTHING_ID_FIELD_NUMBER: _ClassVar[int]
    OWNER_ID_FIELD_NUMBER: _ClassVar[int]
    DELIVERY_FIELD_NUMBER: _ClassVar[int]
    ORIGIN_AFTER_FIELD_NUMBER: _ClassVar[int]
    KIND_VERSION_FIELD_NUMBER: _ClassVar[int]
    clothing_id: str
    owner_id: str
    delivery: Delivery
    origin_after: _timestamp_pb2.Timestamp
    kind_version: str
    def __init__(self, clothing_id: _Optional[str] = ..., owner_id: _Optional[str] = ..., delivery: _Optional[_Union[Delivery, str]] = ..., origin_after: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., kind_version: _Optional[str] = ...) -> None: ...

class GetGarmentResponse(_message.Message):
    __slots__ = ("entry",)
    ENTRY_FIELD_NUMBER: _ClassVar[int]
    entry: Entry
    def __init__(self, entry: _Optional[_Union[Entry, _Mapping]] = ...) -> None: ...

class GetTextRequest(_message.Message):
    __slots__ = ("clothing_id", "owner_id", "delivery", "origin_after", "kind_version")
    CLOTHING_ID_FIELD_NUMBER: _ClassVar[int]
    OWNER_ID_FIELD_NUMBER: _ClassVar[int]
    DELIVERY_FIELD_NUMBER: _ClassVar[int]
    ORIGIN_AFTER_FIELD_NUMBER: _ClassVar[int]
    KIND_VERSION_FIELD_NUMBER: _ClassVar[int]
    clothing_id: str
    owner_id: str
    delivery: Delivery
    origin_after: _timestamp_pb2.Timestamp
    kind_version: str
    def __init__(self, clothing_id: _Optional[str] = ..., owner_id: _Optional[str] = ..., delivery: _Optional[_Union[Delivery, str]] = ..., origin_after: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., kind_version: _Optional[str] = ...) -> None: ...

class GetTextResponse(_message.Message):
    __slots__ = ("entry",)
    ENTRY_FIELD_NUMBER: _ClassVar[int]
    entry: Entry
    def __init__(self, entry: _Optional[_Union[Entry, _Mapping]] = ...) -> None: ...

class GetTryOnRequest(_message.Message):
    __slots__ = ("user_id", "category", "clothing_id", "owner_id", "delivery", "origin_after", "human_kind_version", "garment_kind_version", "text_kind_version")
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    CATEGORY_FIELD_NUMBER: _ClassVar[int]
    CLOTHING_ID_FIELD_NUMBER: _ClassVar[int]
    OWNER_ID_FIELD_NUMBER: _ClassVar[int]
    DELIVERY_FIELD_NUMBER: _ClassVar[int]
    ORIGIN_AFTER_FIELD_NUMBER: _ClassVar[int]
    HUMAN_KIND_VERSION_FIELD_NUMBER: _ClassVar[int]
    GARMENT_KIND_VERSION_FIELD_NUMBER: _ClassVar[int]
    TEXT_KIND_VERSION_FIELD_NUMBER: _ClassVar[int]
    user_id: str
    category: HumanCategory
    clothing_id: str
    owner_id: str
    delivery: Delivery
    origin_after: _timestamp_pb2.Timestamp
    human_kind_version: str
    garment_kind_version: str
    text_kind_version: str
    def __init__(self, user_id: _Optional[str] = ..., category: _Optional[_Union[HumanCategory, str]] = ..., clothing_id: _Optional[str] = ..., owner_id: _Optional[str] = ..., delivery: _Optional[_Union[Delivery, str]] = ..., origin_after: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., human_kind_version: _Optional[str] = ..., garment_kind_version: _Optional[str] = ..., text_kind_version: _Optional[str] = ...) -> None: ...

class GetTryOnResponse(_message.Message):
    __slots__ = ("human", "garment", "text")
    HUMAN_FIELD_NUMBER: _ClassVar[int]
    GARMENT_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    human: Entry
    garment: Entry
    text: Entry
    def __init__(self, human: _Optional[_Union[Entry, _Mapping]] = ..., garment: _Optional[_Union[Entry, _Mapping]] = ..., text: _Optional[_Union[Entry, _Mapping]] = ...) -> None: ...

class GetRequest(_message.Message):
    __slots__ = ("key", "owner_id", "origin_after", "kind_version")
    KEY_FIELD_NUMBER: _ClassVar[int]
    OWNER_ID_FIELD_NUMBER: _ClassVar[int]
    ORIGIN_AFTER_FIELD_NUMBER: _ClassVar[int]
    KIND_VERSION_FIELD_NUMBER: _ClassVar[int]
    key: EntryKey
    owner_id: str
    origin_after: _timestamp_pb2.Timestamp
    kind_version: str
    def __init__(self, key: _Optional[_Union[EntryKey, _Mapping]] = ..., owner_id: _Optional[str] = ..., origin_after: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., kind_version: _Optional[str] = ...) -> None: ...

class GetResponse(_message.Message):
    __slots__ = ("info", "data")
    INFO_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    info: EntryInfo
    data: bytes
    def __init__(self, info: _Optional[_Union[EntryInfo, _Mapping]] = ..., data: _Optional[bytes] = ...) -> None: ...

class PutRequest(_message.Message):
    __slots__ = ("header", "data", "check")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    CHECK_FIELD_NUMBER: _ClassVar[int]
    header: PutHeader
    data: bytes
    check: PutHeader
    def __init__(self, header: _Optional[_Union[PutHeader, _Mapping]] = ..., data: _Optional[bytes] = ..., check: _Optional[_Union[PutHeader, _Mapping]] = ...) -> None: ...

class PutHeader(_message.Message):
    __slots__ = ("key", "owner_id", "as_of", "ttl", "persist")
    KEY_FIELD_NUMBER: _ClassVar[int]
    OWNER_ID_FIELD_NUMBER: _ClassVar[int]
    AS_OF_FIELD_NUMBER: _ClassVar[int]
    TTL_FIELD_NUMBER: _ClassVar[int]
    PERSIST_FIELD_NUMBER: _ClassVar[int]
    key: EntryKey
    owner_id: str
    as_of: _timestamp_pb2.Timestamp
    ttl: _duration_pb2.Duration
    persist: bool
    def __init__(self, key: _Optional[_Union[EntryKey, _Mapping]] = ..., owner_id: _Optional[str] = ..., as_of: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., ttl: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., persist: bool = ...) -> None: ...

class PutResponse(_message.Message):
    __slots__ = ("info", "memory_only")
    INFO_FIELD_NUMBER: _ClassVar[int]
    MEMORY_ONLY_FIELD_NUMBER: _ClassVar[int]
    info: EntryInfo
    memory_only: bool
    def __init__(self, info: _Optional[_Union[EntryInfo, _Mapping]] = ..., memory_only: bool = ...) -> None: ...

class InvalidateRequest(_message.Message):
    __slots__ = ("user_id", "clothing_id", "owner_id", "key", "namespace", "everything", "changed_at", "erase")
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    CLOTHING_ID_FIELD_NUMBER: _ClassVar[int]
    OWNER_ID_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    EVERYTHING_FIELD_NUMBER: _ClassVar[int]
    CHANGED_AT_FIELD_NUMBER: _ClassVar[int]
    ERASE_FIELD_NUMBER: _ClassVar[int]
    user_id: str
    clothing_id: str
    owner_id: str
    key: EntryKey
    namespace: str
    everything: bool
    changed_at: _timestamp_pb2.Timestamp
    erase: bool
    def __init__(self, user_id: _Optional[str] = ..., clothing_id: _Optional[str] = ..., owner_id: _Optional[str] = ..., key: _Optional[_Union[EntryKey, _Mapping]] = ..., namespace: _Optional[str] = ..., everything: bool = ..., changed_at: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., erase: bool = ...) -> None: ...

class InvalidateResponse(_message.Message):
    __slots__ = ("removed_count", "invalidated_at")
    REMOVED_COUNT_FIELD_NUMBER: _ClassVar[int]
    INVALIDATED_AT_FIELD_NUMBER: _ClassVar[int]
    removed_count: int
    invalidated_at: _timestamp_pb2.Timestamp
    def __init__(self, removed_count: _Optional[int] = ..., invalidated_at: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class WarmRequest(_message.Message):
    __slots__ = ("user_id", "categories", "garments")
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    CATEGORIES_FIELD_NUMBER: _ClassVar[int]
    GARMENTS_FIELD_NUMBER: _ClassVar[int]
    user_id: str
    categories: _containers.RepeatedScalarFieldContainer[HumanCategory]
    garments: _containers.RepeatedCompositeFieldContainer[WarmGarment]
    def __init__(self, user_id: _Optional[str] = ..., categories: _Optional[_Iterable[_Union[HumanCategory, str]]] = ..., garments: _Optional[_Iterable[_Union[WarmGarment, _Mapping]]] = ...) -> None: ...

class WarmGarment(_message.Message):
    __slots__ = ("clothing_id", "owner_id")
    CLOTHING_ID_FIELD_NUMBER: _ClassVar[int]
    OWNER_ID_FIELD_NUMBER: _ClassVar[int]
    clothing_id: str
    owner_id: str
    def __init__(self, clothing_id: _Optional[str] = ..., owner_id: _Optional[str] = ...) -> None: ...

class WarmResponse(_message.Message):
    __slots__ = ("done", "total", "failed")
    DONE_FIELD_NUMBER: _ClassVar[int]
    TOTAL_FIELD_NUMBER: _ClassVar[int]
    FAILED_FIELD_NUMBER: _ClassVar[int]
    done: int
    total: int
    failed: WarmFailure
    def __init__(self, done: _Optional[int] = ..., total: _Optional[int] = ..., failed: _Optional[_Union[WarmFailure, _Mapping]] = ...) -> None: ...

class WarmFailure(_message.Message):
    __slots__ = ("key", "reason")
    KEY_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    key: EntryKey
    reason: str
    def __init__(self, key: _Optional[_Union[EntryKey, _Mapping]] = ..., reason: _Optional[str] = ...) -> None: ...

class InspectRequest(_message.Message):
    __slots__ = ("key",)
    KEY_FIELD_NUMBER: _ClassVar[int]
    key: EntryKey
    def __init__(self, key: _Optional[_Union[EntryKey, _Mapping]] = ...) -> None: ...

class InspectResponse(_message.Message):
    __slots__ = ("key", "tiers", "filling")
    KEY_FIELD_NUMBER: _ClassVar[int]
    TIERS_FIELD_NUMBER: _ClassVar[int]
    FILLING_FIELD_NUMBER: _ClassVar[int]
    key: EntryKey
    tiers: _containers.RepeatedCompositeFieldContainer[InspectedTier]
    filling: bool
    def __init__(self, key: _Optional[_Union[EntryKey, _Mapping]] = ..., tiers: _Optional[_Iterable[_Union[InspectedTier, _Mapping]]] = ..., filling: bool = ...) -> None: ...

class InspectedTier(_message.Message):
    __slots__ = ("tier", "info", "owner_id", "age", "expires_in", "accesses")
    TIER_FIELD_NUMBER: _ClassVar[int]
    INFO_FIELD_NUMBER: _ClassVar[int]
    OWNER_ID_FIELD_NUMBER: _ClassVar[int]
    AGE_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_IN_FIELD_NUMBER: _ClassVar[int]
    ACCESSES_FIELD_NUMBER: _ClassVar[int]
    tier: Tier
    info: EntryInfo
    owner_id: str
    age: _duration_pb2.Duration
    expires_in: _duration_pb2.Duration
    accesses: int
    def __init__(self, tier: _Optional[_Union[Tier, str]] = ..., info: _Optional[_Union[EntryInfo, _Mapping]] = ..., owner_id: _Optional[str] = ..., age: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., expires_in: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., accesses: _Optional[int] = ...) -> None: ...

class StatsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class StatsResponse(_message.Message):
    __slots__ = ("started_at", "version", "requests", "namespaces", "fills", "failed_fills", "fenced_fills", "coalesced_waiters", "flights", "invalidations", "puts", "damaged_entries", "decode_failures", "memory", "disk", "held_bytes")
    STARTED_AT_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    REQUESTS_FIELD_NUMBER: _ClassVar[int]
    NAMESPACES_FIELD_NUMBER: _ClassVar[int]
    FILLS_FIELD_NUMBER: _ClassVar[int]
    FAILED_FILLS_FIELD_NUMBER: _ClassVar[int]
    FENCED_FILLS_FIELD_NUMBER: _ClassVar[int]
    COALESCED_WAITERS_FIELD_NUMBER: _ClassVar[int]
    FLIGHTS_FIELD_NUMBER: _ClassVar[int]
    INVALIDATIONS_FIELD_NUMBER: _ClassVar[int]
    PUTS_FIELD_NUMBER: _ClassVar[int]
    DAMAGED_ENTRIES_FIELD_NUMBER: _ClassVar[int]
    DECODE_FAILURES_FIELD_NUMBER: _ClassVar[int]
    MEMORY_FIELD_NUMBER: _ClassVar[int]
    DISK_FIELD_NUMBER: _ClassVar[int]
    HELD_BYTES_FIELD_NUMBER: _ClassVar[int]
    started_at: _timestamp_pb2.Timestamp
    version: str
    requests: RequestStats
    namespaces: _containers.RepeatedCompositeFieldContainer[NamespaceStats]
    fills: int
    failed_fills: int
    fenced_fills: int
    coalesced_waiters: int
    flights: int
    invalidations: int
    puts: int
    damaged_entries: int
    decode_failures: int
    memory: TierStats
    disk: TierStats
    held_bytes: int
    def __init__(self, started_at: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., version: _Optional[str] = ..., requests: _Optional[_Union[RequestStats, _Mapping]] = ..., namespaces: _Optional[_Iterable[_Union[NamespaceStats, _Mapping]]] = ..., fills: _Optional[int] = ..., failed_fills: _Optional[int] = ..., fenced_fills: _Optional[int] = ..., coalesced_waiters: _Optional[int] = ..., flights: _Optional[int] = ..., invalidations: _Optional[int] = ..., puts: _Optional[int] = ..., damaged_entries: _Optional[int] = ..., decode_failures: _Optional[int] = ..., memory: _Optional[_Union[TierStats, _Mapping]] = ..., disk: _Optional[_Union[TierStats, _Mapping]] = ..., held_bytes: _Optional[int] = ...) -> None: ...

class RequestStats(_message.Message):
    __slots__ = ("memory_hits", "disk_hits", "origin_fills", "not_found", "failed", "local_hits")
    MEMORY_HITS_FIELD_NUMBER: _ClassVar[int]
    DISK_HITS_FIELD_NUMBER: _ClassVar[int]
    ORIGIN_FILLS_FIELD_NUMBER: _ClassVar[int]
    NOT_FOUND_FIELD_NUMBER: _ClassVar[int]
    FAILED_FIELD_NUMBER: _ClassVar[int]
    LOCAL_HITS_FIELD_NUMBER: _ClassVar[int]
    memory_hits: int
    disk_hits: int
    origin_fills: int
    not_found: int
    failed: int
    local_hits: int
    def __init__(self, memory_hits: _Optional[int] = ..., disk_hits: _Optional[int] = ..., origin_fills: _Optional[int] = ..., not_found: _Optional[int] = ..., failed: _Optional[int] = ..., local_hits: _Optional[int] = ...) -> None: ...

class NamespaceStats(_message.Message):
    __slots__ = ("namespace", "memory_entries", "memory_bytes", "memory_max_entries", "disk_entries", "disk_bytes")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    MEMORY_ENTRIES_FIELD_NUMBER: _ClassVar[int]
    MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    MEMORY_MAX_ENTRIES_FIELD_NUMBER: _ClassVar[int]
    DISK_ENTRIES_FIELD_NUMBER: _ClassVar[int]
    DISK_BYTES_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    memory_entries: int
    memory_bytes: int
    memory_max_entries: int
    disk_entries: int
    disk_bytes: int
    def __init__(self, namespace: _Optional[str] = ..., memory_entries: _Optional[int] = ..., memory_bytes: _Optional[int] = ..., memory_max_entries: _Optional[int] = ..., disk_entries: _Optional[int] = ..., disk_bytes: _Optional[int] = ...) -> None: ...

class TierStats(_message.Message):
    __slots__ = ("entries", "size_bytes", "max_bytes", "evictions", "expirations")
    ENTRIES_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_BYTES_FIELD_NUMBER: _ClassVar[int]
    EVICTIONS_FIELD_NUMBER: _ClassVar[int]
    EXPIRATIONS_FIELD_NUMBER: _ClassVar[int]
    entries: int
    size_bytes: int
    max_bytes: int
    evictions: int
    expirations: int
    def __init__(self, entries: _Optional[int] = ..., size_bytes: _Optional[int] = ..., max_bytes: _Optional[int] = ..., evictions: _Optional[int] = ..., expirations: _Optional[int] = ...) -> None: ...

class AttachRequest(_message.Message):
    __slots__ = ("client_version",)
    CLIENT_VERSION_FIELD_NUMBER: _ClassVar[int]
    client_version: str
    def __init__(self, client_version: _Optional[str] = ...) -> None: ...

class AttachResponse(_message.Message):
    __slots__ = ("runtime_dir", "boot_id", "version")
    RUNTIME_DIR_FIELD_NUMBER: _ClassVar[int]
    BOOT_ID_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    runtime_dir: str
    boot_id: bytes
    version: str
    def __init__(self, runtime_dir: _Optional[str] = ..., boot_id: _Optional[bytes] = ..., version: _Optional[str] = ...) -> None: ...

class ReportHitsRequest(_message.Message):
    __slots__ = ("hits",)
    HITS_FIELD_NUMBER: _ClassVar[int]
    hits: _containers.RepeatedCompositeFieldContainer[LocalHits]
    def __init__(self, hits: _Optional[_Iterable[_Union[LocalHits, _Mapping]]] = ...) -> None: ...

class LocalHits(_message.Message):
    __slots__ = ("key", "generation", "count")
    KEY_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    key: EntryKey
    generation: int
    count: int
    def __init__(self, key: _Optional[_Union[EntryKey, _Mapping]] = ..., generation: _Optional[int] = ..., count: _Optional[int] = ...) -> None: ...

class ReportHitsResponse(_message.Message):
    __slots__ = ("counted",)
    COUNTED_FIELD_NUMBER: _ClassVar[int]
    counted: int
    def __init__(self, counted: _Optional[int] = ...) -> None: ...

class ErrorDetail(_message.Message):
    __slots__ = ("reason", "object_keys", "parts", "sources_from")
    REASON_FIELD_NUMBER: _ClassVar[int]
    OBJECT_KEYS_FIELD_NUMBER: _ClassVar[int]
    PARTS_FIELD_NUMBER: _ClassVar[int]
    SOURCES_FROM_FIELD_NUMBER: _ClassVar[int]
    reason: str
    object_keys: _containers.RepeatedScalarFieldContainer[str]
    parts: _containers.RepeatedCompositeFieldContainer[PartStatus]
    sources_from: _timestamp_pb2.Timestamp
    def __init__(self, reason: _Optional[str] = ..., object_keys: _Optional[_Iterable[str]] = ..., parts: _Optional[_Iterable[_Union[PartStatus, _Mapping]]] = ..., sources_from: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class PartStatus(_message.Message):
    __slots__ = ("part", "code", "reason", "message")
    PART_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    part: str
    code: int
    reason: str
    message: str
    def __init__(self, part: _Optional[str] = ..., code: _Optional[int] = ..., reason: _Optional[str] = ..., message: _Optional[str] = ...) -> None: ...
