"""Do requests become the engine's values, and entries the contract's messages?"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import fields, replace
from datetime import timedelta
from types import NoneType
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import DecodeError
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import example, given
from hypothesis import strategies as st

from cachesvc.core.clock import NS_PER_S, Now
from cachesvc.core.entry import FORMAT_VERSION, EntryMeta
from cachesvc.core.errors import InvalidRequest, PreconditionFailed
from cachesvc.core.keys import EntryKey
from cachesvc.core.kinds import BUILT_IN, GARMENT, Kinds
from cachesvc.core.origin import OriginStamp
from cachesvc.core.scopes import ScopeKind
from cachesvc.core.tier import Tier
from cachesvc.edge import messages
from cachesvc.edge.messages import RequestReader
from cachesvc.engine.flight import Served
from cachesvc.tiers.shared_files import HeapBytes
from cachesvc_proto.v1 import cache_pb2 as pb
from tests.support.engine.entries import meta_of

READ = RequestReader(Kinds(BUILT_IN))
UPPER = pb.HUMAN_CATEGORY_UPPER_BODY
CATEGORIES = {
    pb.HUMAN_CATEGORY_UPPER_BODY: "human_upper_body",
    pb.HUMAN_CATEGORY_LOWER_BODY: "human_lower_body",
    pb.HUMAN_CATEGORY_DRESSES: "human_dresses",
}


@pytest.mark.parametrize("category", CATEGORIES)
def test_a_category_is_a_namespace_and_a_person_their_own_owner(category: pb.HumanCategory) -> None:
    read = READ.human(pb.GetHumanRequest(user_id="u", category=category), "")
    assert read.key == EntryKey(CATEGORIES[category], "u")
    assert read.owner == "u"
    assert read.origin_after_ns == 0
    assert read.kind.name == "human"


def test_every_category_of_the_contract_has_a_namespace() -> None:
    assert set(pb.HumanCategory.values()) - {0} == messages.HUMAN_NAMESPACES.keys()


def test_an_origin_after_of_zero_is_not_the_same_as_none_given() -> None:
    """Every entry is newer than 1970, so both allow any age."""
    request = pb.GetHumanRequest(user_id="u", category=UPPER, origin_after=Timestamp())
    assert READ.human(request, "").origin_after_ns == 0
    request.origin_after.FromNanoseconds(1_700_000_000_123_456_789)
    assert READ.human(request, "").origin_after_ns == 1_700_000_000_123_456_789


def test_a_try_on_reads_the_garment_under_its_owners_prefix() -> None:
    request = pb.GetTryOnRequest(user_id="u", category=UPPER, clothing_id="c", owner_id="o")
    request.origin_after.FromSeconds(5)
    reads = READ.try_on(request)
    assert list(reads) == ["human", "garment", "text"]
    assert [read.owner for read in reads.values()] == ["u", "o", "o"]
    # origin_after concerns the person: their photo changed, not the garment.
    assert [read.origin_after_ns for read in reads.values()] == [5 * NS_PER_S, 0, 0]


def test_a_try_on_without_an_owner_is_of_the_persons_own_garment() -> None:
    reads = READ.try_on(pb.GetTryOnRequest(user_id="u", category=UPPER, clothing_id="c"))
    assert [read.owner for read in reads.values()] == ["u", "u", "u"]


def test_a_get_of_a_person_needs_no_owner_but_takes_their_own() -> None:
    key = pb.EntryKey(namespace="human_dresses", id="u")
    assert READ.any(pb.GetRequest(key=key)).owner == "u"
    assert READ.any(pb.GetRequest(key=key, owner_id="u")).owner == "u"
    assert READ.any(pb.GetRequest(key=pb.EntryKey(namespace="text", id="c"))).owner == ""


def test_every_get_names_its_version() -> None:
    """Promise 1: a caller is never served another model's tensors."""
    person = pb.GetHumanRequest(user_id="u", category=UPPER, kind_version="v2")
    of_any = pb.GetRequest(key=pb.EntryKey(namespace="garment", id="c"), kind_version="v2")
    assert READ.human(person, person.kind_version).kind_version == "v2"
    assert READ.any(of_any).kind_version == "v2"
    garment = pb.GetGarmentRequest(clothing_id="c", kind_version="v2")
    assert READ.clothing("garment", garment).kind_version == "v2"


def test_a_warm_up_names_each_key_once_and_all_categories_by_default() -> None:
    garment = pb.WarmGarment(clothing_id="c")
    reads = READ.warm(pb.WarmRequest(user_id="u", garments=[garment, garment]))
    assert [read.key for read in reads] == [
        *(EntryKey(namespace, "u") for namespace in CATEGORIES.values()),
        EntryKey("garment", "c"),
        EntryKey("text", "c"),
    ]
    one = pb.WarmRequest(user_id="u", categories=[UPPER, UPPER])
    assert [read.key.namespace for read in READ.warm(one)] == ["human_upper_body"]


def test_an_absent_as_of_or_ttl_is_none_and_not_zero() -> None:
    key = pb.EntryKey(namespace="garment", id="c")
    header = READ.put_header(pb.PutHeader(key=key, owner_id="o"))
    assert (header.as_of_ns, header.ttl_s, header.persist) == (None, None, False)
    assert header.kind is GARMENT
    given_header = pb.PutHeader(
        key=key, as_of=Timestamp(seconds=1), ttl=Duration(nanos=500_000_000)
    )
    header = READ.put_header(given_header)
    assert (header.as_of_ns, header.ttl_s) == (NS_PER_S, 0.5)


@pytest.mark.parametrize(
    "ttl", [timedelta(0), timedelta(seconds=-1), timedelta(days=366, seconds=1)], ids=str
)
def test_a_ttl_outside_its_bounds_is_refused(ttl: timedelta) -> None:
    key = pb.EntryKey(namespace="garment", id="c")
    duration = Duration()
    duration.FromTimedelta(ttl)
    with pytest.raises(InvalidRequest) as caught:
        READ.put_header(pb.PutHeader(key=key, ttl=duration))
    assert caught.value.reason == "INVALID_TTL"


@pytest.mark.parametrize(
    ("request_", "kind", "covered"),
    [
        (
            pb.InvalidateRequest(user_id="i"),
            ScopeKind.USER,
            {"human_upper_body", "human_lower_body", "human_dresses"},
        ),
        (pb.InvalidateRequest(clothing_id="i"), ScopeKind.CLOTHING, {"garment", "text"}),
        (
            pb.InvalidateRequest(key=pb.EntryKey(namespace="text", id="i")),
            ScopeKind.KEY,
            {"text"},
        ),
        (pb.InvalidateRequest(namespace="garment"), ScopeKind.NAMESPACE, {"garment"}),
        (
            pb.InvalidateRequest(everything=True),
            ScopeKind.EVERYTHING,
            set(Kinds(BUILT_IN).namespaces),
        ),
    ],
    ids=lambda value: value.name if isinstance(value, ScopeKind) else "",
)
def test_a_target_covers_exactly_its_namespaces(
    request_: pb.InvalidateRequest, kind: ScopeKind, covered: set[str]
) -> None:
    scope = READ.scope(request_)
    assert scope.kind is kind
    namespaces = Kinds(BUILT_IN).namespaces
    assert {n for n in namespaces if scope.covers(EntryKey(n, "i"), "someone")} == covered


def test_an_owners_scope_covers_what_was_read_from_their_prefix_only() -> None:
    scope = READ.scope(pb.InvalidateRequest(owner_id="o"))
    assert scope.covers(EntryKey("garment", "c"), "o")
    assert not scope.covers(EntryKey("garment", "c"), "another")


READERS: dict[type[Any], Callable[[Any], object]] = {
    pb.GetHumanRequest: lambda request: READ.human(request, request.kind_version),
    pb.GetGarmentRequest: lambda request: READ.clothing("garment", request),
    pb.GetTryOnRequest: READ.try_on,
    pb.GetRequest: READ.any,
    pb.WarmRequest: READ.warm,
    pb.InvalidateRequest: lambda request: (READ.scope(request), messages.changed_at_ns(request)),
    pb.PutHeader: READ.put_header,
}
REQUESTS = list(READERS)


@given(st.sampled_from(REQUESTS), st.binary(max_size=200))
def test_any_message_is_read_or_refused_and_never_breaks(kind: type[Any], data: bytes) -> None:
    """Promise 5: every message that protobuf can parse ends as a value, or as a refusal with a
    reason.
    """
    request = kind()
    with suppress(DecodeError):  # gRPC refuses it before our code runs
        request.ParseFromString(data)
    with suppress(InvalidRequest, PreconditionFailed):
        READERS[kind](request)


def with_moment(kind: type[Any], moment: Timestamp) -> Any:
    """Return a request in which only the moment may be wrong."""
    key = pb.EntryKey(namespace="garment", id="c")
    return {
        pb.GetHumanRequest: pb.GetHumanRequest(user_id="u", category=UPPER, origin_after=moment),
        pb.GetTryOnRequest: pb.GetTryOnRequest(
            user_id="u", category=UPPER, clothing_id="c", origin_after=moment
        ),
        pb.GetRequest: pb.GetRequest(key=key, origin_after=moment),
        pb.InvalidateRequest: pb.InvalidateRequest(user_id="u", changed_at=moment),
        pb.PutHeader: pb.PutHeader(key=key, as_of=moment),
    }[kind]


@pytest.mark.parametrize(
    "kind",
    [pb.GetHumanRequest, pb.GetTryOnRequest, pb.GetRequest, pb.InvalidateRequest, pb.PutHeader],
)
@given(st.integers(-(2**63), 2**63 - 1), st.integers(-(2**31), 2**31 - 1))
@example(1 << 62, 0)
@example(0, -1)
def test_any_moment_is_read_or_refused_as_invalid(
    kind: type[Any], seconds: int, nanos: int
) -> None:
    request = with_moment(kind, Timestamp(seconds=seconds, nanos=nanos))
    with suppress(InvalidRequest):
        READERS[kind](request)


MAX_NS = (1 << 63) - 1
OUTSIDE = {
    "a nanosecond before 1970": Timestamp(seconds=-1, nanos=999_999_999),
    "1969": Timestamp(seconds=-31_536_000),
    "year 1": Timestamp(seconds=-62_135_596_800),
    "a nanosecond too late": Timestamp(seconds=9_223_372_036, nanos=854_775_808),
    "2300": Timestamp(seconds=10_413_792_000),
    "year 9999": Timestamp(seconds=253_402_300_799),
    "year 10000": Timestamp(seconds=253_402_300_800),
    "the most that fits": Timestamp(seconds=2**63 - 1),
    "negative nanos": Timestamp(seconds=1, nanos=-1),
    "a second of nanos": Timestamp(seconds=1, nanos=1_000_000_000),
}


@pytest.mark.parametrize("when", OUTSIDE)
@pytest.mark.parametrize(
    "kind",
    [pb.GetHumanRequest, pb.GetTryOnRequest, pb.GetRequest, pb.InvalidateRequest, pb.PutHeader],
)
def test_a_moment_before_1970_or_after_2262_is_refused(kind: type[Any], when: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        READERS[kind](with_moment(kind, OUTSIDE[when]))
    assert refused.value.reason == "INVALID_TIME"


@pytest.mark.parametrize("wall_ns", [0, 1, MAX_NS])
def test_the_first_and_the_last_moment_that_can_be_stored_are_read(wall_ns: int) -> None:
    moment = Timestamp(seconds=wall_ns // NS_PER_S, nanos=wall_ns % NS_PER_S)
    assert READ.put_header(with_moment(pb.PutHeader, moment)).as_of_ns == wall_ns
    assert READ.any(with_moment(pb.GetRequest, moment)).origin_after_ns == wall_ns
    request = with_moment(pb.InvalidateRequest, moment)
    assert messages.changed_at_ns(request) == wall_ns


@pytest.mark.parametrize(
    "ttl",
    [
        Duration(),
        Duration(seconds=-1),
        Duration(nanos=-1),
        Duration(seconds=1, nanos=-1),
        Duration(seconds=1, nanos=1_000_000_000),
        Duration(seconds=366 * 24 * 3600 + 1),
        Duration(seconds=2**63 - 1),
        Duration(seconds=-(2**63)),
    ],
    ids=str,
)
def test_a_ttl_that_is_no_time_from_now_is_refused(ttl: Duration) -> None:
    header = pb.PutHeader(key=pb.EntryKey(namespace="garment", id="c"), ttl=ttl)
    with pytest.raises(InvalidRequest) as refused:
        READ.put_header(header)
    assert refused.value.reason == "INVALID_TTL"


# ---- a person's own prefix


PERSONS = {
    "Get": lambda owner: READ.any(
        pb.GetRequest(key=pb.EntryKey(namespace="human_dresses", id="u"), owner_id=owner)
    ),
    "Put": lambda owner: READ.put_header(
        pb.PutHeader(key=pb.EntryKey(namespace="human_dresses", id="u"), owner_id=owner)
    ),
    "Put with persist": lambda owner: READ.put_header(
        pb.PutHeader(
            key=pb.EntryKey(namespace="human_dresses", id="u"), owner_id=owner, persist=True
        )
    ),
}


@pytest.mark.parametrize("call", PERSONS)
def test_a_persons_entry_has_no_other_owner(call: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        PERSONS[call]("somebody-else")
    assert refused.value.reason == "FOREIGN_OWNER"
    for own in ("", "u"):
        assert PERSONS[call](own).owner == "u"


def test_a_try_on_and_a_warm_up_read_the_person_from_their_own_prefix() -> None:
    reads = READ.try_on(
        pb.GetTryOnRequest(user_id="u", category=UPPER, clothing_id="c", owner_id="o")
    )
    assert {part: read.owner for part, read in reads.items()} == {
        "human": "u",
        "garment": "o",
        "text": "o",
    }
    warmed = READ.warm(
        pb.WarmRequest(user_id="u", garments=[pb.WarmGarment(clothing_id="c", owner_id="o")])
    )
    assert {(read.kind.name, read.owner) for read in warmed} == {
        ("human", "u"),
        ("garment", "o"),
        ("text", "o"),
    }


def test_an_entrys_info_says_when_it_expires_on_the_callers_clock() -> None:
    meta = EntryMeta(
        key=EntryKey("garment", "c"),
        owner="o",
        generation=7,
        size_bytes=123,
        checksum=-1,
        stamps=(OriginStamp("a", "1", 10.0),),
        begun_ns=20 * NS_PER_S,
        origin_ns=10 * NS_PER_S,
        confirmed_ns=0,
        base_ttl_s=60.0,
        explicit_ttl_s=None,
        kind_version="v1",
    )
    # The wall clock was set 1,000 s ahead since the daemon started.
    now = Now(wall_ns=1_030 * NS_PER_S, steady_ns=30 * NS_PER_S)
    info = messages.entry_info(Served(meta, HeapBytes(b""), Tier.DISK, 60 * NS_PER_S), now)
    assert info.expires_at.ToNanoseconds() == 1_060 * NS_PER_S
    assert info.filled_at.ToNanoseconds() == 20 * NS_PER_S
    assert info.origin_time.ToNanoseconds() == 10 * NS_PER_S
    assert (info.generation, info.size_bytes, info.kind_version) == (7, 123, "v1")
    assert info.format_version == FORMAT_VERSION
    assert info.tier == pb.TIER_DISK


@given(st.integers(-(2**62), 2**62))
def test_a_moment_survives_the_way_to_a_message(wall_ns: int) -> None:
    stamp = messages.timestamp(wall_ns)
    assert stamp.seconds * NS_PER_S + stamp.nanos == wall_ns
    assert 0 <= stamp.nanos < NS_PER_S
    span = messages.duration(wall_ns)
    assert span.seconds * NS_PER_S + span.nanos == max(0, wall_ns)


META = meta_of(EntryKey("text", "t"), b"blob", generation=7)
AT = Now(wall_ns=10**18, steady_ns=10**18)
# Another value for each field: what a later object of the same generation may differ in.
ANOTHER: dict[type, Any] = {
    EntryKey: EntryKey("garment", "t"),
    tuple: (OriginStamp("another", "etag", 1.0),),
    str: "another",
    int: 6,
    float: 4.5,
    NoneType: 5.5,
}
OTHER_META = {field.name: ANOTHER[type(getattr(META, field.name))] for field in fields(EntryMeta)}
OTHER_LOOKUP: dict[str, Any] = {
    "tier": Tier.DISK,
    "expires_ns": 10**18 + 6,
    "accesses": 3,
    "is_stale": True,
    "in_l2": False,
}


def served(meta: EntryMeta) -> Served:
    return Served(meta, HeapBytes(b"blob"), Tier.MEMORY, 10**18 + 5)


def test_each_field_of_an_entrys_info_is_decided_by_the_entry_or_by_the_look_up() -> None:
    by_entry = messages.meta_info(replace(META, **OTHER_META))
    by_lookup = messages.lookup_info(Tier.DISK, 10**18 + 5, AT, is_stale=True)
    set_in = [{field.name for field, _ in part.ListFields()} for part in (by_entry, by_lookup)]
    assert set_in[0] | set_in[1] == {field.name for field in pb.EntryInfo.DESCRIPTOR.fields}
    assert set_in[0] & set_in[1] == set()


def test_no_field_of_an_entry_freezes_in_the_description_of_its_generation() -> None:
    """A description equals the entry's info, whatever was described before."""
    assert all(getattr(META, name) != value for name, value in OTHER_META.items())
    assert set(OTHER_LOOKUP) == set(Served._fields) - {"meta", "blob"}
    descriptions = messages.Descriptions()
    answers = [served(META)]
    answers += [served(replace(META, **{name: value})) for name, value in OTHER_META.items()]
    answers += [served(META)._replace(**{name: value}) for name, value in OTHER_LOOKUP.items()]
    for answer in (*answers, *reversed(answers)):
        described = pb.EntryInfo.FromString(descriptions.describe(answer, AT))
        assert described == messages.entry_info(answer, AT)
