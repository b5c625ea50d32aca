"""Does every call answer what the contract says, with a stable reason?

All tests share one daemon.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from cachesvc_proto.v1 import cache_pb2 as pb
from cachesvc_proto.v1.cache_pb2_grpc import CacheServiceStub
from tests.support import sample_objects
from tests.support.daemons import Daemon
from tests.support.grpc_calls import TIMEOUT_S, get_garment, get_human, moment, put, refused
from tests.support.sample_objects import fresh_id

Code = grpc.StatusCode
UPPER = pb.HUMAN_CATEGORY_UPPER_BODY
# Open enums may carry numbers that this version does not know.
UNKNOWN: Any = 99
BAD_IDS = [
    "..",
    "../../etc",
    "a/b",
    "/etc/passwd",
    ".hidden",
    "-rf",
    "a\0b",
    "a\n",
    " a",
    "a" * 129,
    "b\u00fccher",
    "\uff0e\uff0e",
    "%2e%2e",
    "{owner}",
]
Call = Callable[[CacheServiceStub, str], Any]


def key(entry_id: str, namespace: str = "garment") -> pb.EntryKey:
    return pb.EntryKey(namespace=namespace, id=entry_id)


def send(stub: CacheServiceStub, *messages: pb.PutRequest) -> pb.PutResponse:
    answer: pb.PutResponse = stub.Put(iter(messages), timeout=TIMEOUT_S)
    return answer


def header(**fields: Any) -> pb.PutRequest:
    return pb.PutRequest(header=pb.PutHeader(**fields))


# One call for each field in which a caller may name an id.
CALLS: dict[str, Call] = {
    "GetHuman": lambda stub, bad: get_human(stub, bad),
    "GetGarment": lambda stub, bad: get_garment(stub, bad),
    "GetGarment owner": lambda stub, bad: get_garment(stub, "c", bad),
    "GetText": lambda stub, bad: stub.GetText(pb.GetTextRequest(clothing_id=bad)),
    "GetText owner": lambda stub, bad: stub.GetText(
        pb.GetTextRequest(clothing_id="c", owner_id=bad)
    ),
    "GetTryOn": lambda stub, bad: stub.GetTryOn(
        pb.GetTryOnRequest(user_id=bad, category=UPPER, clothing_id="c")
    ),
    "GetTryOn clothing": lambda stub, bad: stub.GetTryOn(
        pb.GetTryOnRequest(user_id="u", category=UPPER, clothing_id=bad)
    ),
    "GetTryOn owner": lambda stub, bad: stub.GetTryOn(
        pb.GetTryOnRequest(user_id="u", category=UPPER, clothing_id="c", owner_id=bad)
    ),
    "Get": lambda stub, bad: list(stub.Get(pb.GetRequest(key=key(bad)))),
    "Get owner": lambda stub, bad: list(stub.Get(pb.GetRequest(key=key("c"), owner_id=bad))),
    "Put": lambda stub, bad: send(stub, header(key=key(bad))),
    "Put owner": lambda stub, bad: send(stub, header(key=key("c"), owner_id=bad)),
    "Invalidate user": lambda stub, bad: stub.Invalidate(pb.InvalidateRequest(user_id=bad)),
    "Invalidate clothing": lambda stub, bad: stub.Invalidate(pb.InvalidateRequest(clothing_id=bad)),
    "Invalidate owner": lambda stub, bad: stub.Invalidate(pb.InvalidateRequest(owner_id=bad)),
    "Invalidate key": lambda stub, bad: stub.Invalidate(pb.InvalidateRequest(key=key(bad))),
    "Warm": lambda stub, bad: list(stub.Warm(pb.WarmRequest(user_id=bad))),
    "Warm garment": lambda stub, bad: list(
        stub.Warm(pb.WarmRequest(garments=[pb.WarmGarment(clothing_id=bad, owner_id="o")]))
    ),
    "Warm owner": lambda stub, bad: list(
        stub.Warm(pb.WarmRequest(garments=[pb.WarmGarment(clothing_id="c", owner_id=bad)]))
    ),
    "Inspect": lambda stub, bad: stub.Inspect(pb.InspectRequest(key=key(bad))),
}
# These calls may leave the owner out, so an empty one is no error.
OPTIONAL = {"GetGarment owner", "GetText owner", "GetTryOn owner", "Get owner", "Put owner"}
NAMESPACE_CALLS: dict[str, Call] = {
    "Get": lambda stub, bad: list(stub.Get(pb.GetRequest(key=key("x", bad)))),
    "Put": lambda stub, bad: send(stub, header(key=key("x", bad))),
    "Invalidate": lambda stub, bad: stub.Invalidate(pb.InvalidateRequest(namespace=bad)),
    "Invalidate key": lambda stub, bad: stub.Invalidate(pb.InvalidateRequest(key=key("x", bad))),
    "Inspect": lambda stub, bad: stub.Inspect(pb.InspectRequest(key=key("x", bad))),
}


@pytest.fixture(scope="module")
def stub(daemon: Daemon) -> CacheServiceStub:
    return daemon.stub()


@pytest.fixture(scope="module")
def admin_stub(daemon: Daemon) -> CacheServiceStub:
    return daemon.admin_stub()


@pytest.mark.parametrize("name", CALLS)
def test_a_bad_id_is_refused_wherever_it_is_named(stub: CacheServiceStub, name: str) -> None:
    """Promise 10."""
    for bad in BAD_IDS:
        with refused() as refusal:
            CALLS[name](stub, bad)
        assert refusal.status == (Code.INVALID_ARGUMENT, "INVALID_ID"), bad
        assert refusal.detail.reason == "INVALID_ID"
        if len(bad) > 3:
            assert bad not in refusal.message


@pytest.mark.parametrize("name", sorted(CALLS.keys() - OPTIONAL - {"Warm", "Warm owner"}))
def test_an_id_that_is_not_given_is_missing(stub: CacheServiceStub, name: str) -> None:
    with refused() as refusal:
        CALLS[name](stub, "")
    assert refusal.status == (Code.INVALID_ARGUMENT, "MISSING_FIELD")


@pytest.mark.parametrize("name", NAMESPACE_CALLS)
def test_a_namespace_that_no_kind_has_is_refused(admin_stub: CacheServiceStub, name: str) -> None:
    with refused() as refusal:
        NAMESPACE_CALLS[name](admin_stub, "nowhere")
    assert refusal.status == (Code.INVALID_ARGUMENT, "UNKNOWN_NAMESPACE")
    with refused() as refusal:
        NAMESPACE_CALLS[name](admin_stub, "../garment")
    assert refusal.status == (Code.INVALID_ARGUMENT, "INVALID_ID")


MISSING: dict[str, Callable[[CacheServiceStub], Any]] = {
    "a category": lambda stub: stub.GetHuman(pb.GetHumanRequest(user_id="u")),
    "a known category": lambda stub: stub.GetHuman(
        pb.GetHumanRequest(user_id="u", category=UNKNOWN)
    ),
    "a category of a try-on": lambda stub: stub.GetTryOn(
        pb.GetTryOnRequest(user_id="u", clothing_id="c")
    ),
    "what to invalidate": lambda stub: stub.Invalidate(pb.InvalidateRequest()),
    "everything = true": lambda stub: stub.Invalidate(pb.InvalidateRequest(everything=False)),
    "what to warm": lambda stub: list(stub.Warm(pb.WarmRequest())),
    "a Put's header": lambda stub: send(stub, pb.PutRequest(data=b"x")),
    "a Put's messages": lambda stub: send(stub),
    "an owner to warm": lambda stub: list(
        stub.Warm(pb.WarmRequest(garments=[pb.WarmGarment(clothing_id="c")]))
    ),
}


@pytest.mark.parametrize("what", MISSING)
def test_a_request_that_lacks_something_says_so(stub: CacheServiceStub, what: str) -> None:
    with refused() as refusal:
        MISSING[what](stub)
    assert refusal.status == (Code.INVALID_ARGUMENT, "MISSING_FIELD")


FAR = Timestamp(seconds=1 << 62)
BAD_TIMES: dict[str, Callable[[CacheServiceStub], Any]] = {
    "GetHuman origin_after": lambda stub: get_human(stub, "u", origin_after=FAR),
    "GetTryOn origin_after": lambda stub: stub.GetTryOn(
        pb.GetTryOnRequest(user_id="u", category=UPPER, clothing_id="c", origin_after=FAR)
    ),
    "Get origin_after": lambda stub: list(stub.Get(pb.GetRequest(key=key("c"), origin_after=FAR))),
    "Put as_of": lambda stub: send(stub, header(key=key("c"), as_of=FAR)),
    "Put ttl": lambda stub: send(stub, header(key=key("c"), ttl=Duration(seconds=1 << 62))),
    "Put no ttl at all": lambda stub: send(stub, header(key=key("c"), ttl=Duration())),
    "Put negative ttl": lambda stub: send(stub, header(key=key("c"), ttl=Duration(seconds=-1))),
    "Invalidate changed_at": lambda stub: stub.Invalidate(
        pb.InvalidateRequest(user_id="u", changed_at=FAR)
    ),
}


@pytest.mark.parametrize("name", BAD_TIMES)
def test_a_time_that_cannot_be_is_an_invalid_argument(stub: CacheServiceStub, name: str) -> None:
    with refused() as refusal:
        BAD_TIMES[name](stub)
    assert refusal.code is Code.INVALID_ARGUMENT
    assert refusal.reason


def test_what_the_origin_does_not_have_is_not_found(stub: CacheServiceStub) -> None:
    with refused() as refusal:
        get_human(stub, fresh_id("u"))
    assert refusal.status == (Code.NOT_FOUND, "NO_SUCH_OBJECT")


def test_an_origin_older_than_asked_for_is_outdated(daemon: Daemon, stub: CacheServiceStub) -> None:
    """Promise 3."""
    user = fresh_id("u")
    person = sample_objects.person(user)
    sample_objects.put_in_folder(daemon.origin_dir, person)
    hour_ago = time.time() - 3600
    # Half an upload does not count: one new member does not make a new person.
    for object_key in list(person.objects)[1:]:
        os.utime(daemon.origin_dir / object_key, (hour_ago, hour_ago))
    with refused() as refusal:
        get_human(stub, user, origin_after=moment(time.time() - 60))
    assert refusal.status == (Code.NOT_FOUND, "ORIGIN_OUTDATED")
    assert get_human(stub, user).info.tier == pb.TIER_ORIGIN
    uploaded_at = time.time()
    sample_objects.put_in_folder(daemon.origin_dir, person)
    fresh = get_human(stub, user, origin_after=moment(time.time() - 60))
    # Read again, or renewed if L2 had the same bytes by then; never the old entry unchanged.
    assert fresh.info.tier in (pb.TIER_ORIGIN, pb.TIER_DISK)
    assert fresh.info.origin_time.ToSeconds() >= int(uploaded_at) - 1
    assert person.matches(fresh.tensors)


def test_a_moment_in_the_future_counts_as_the_arrival_of_the_call(
    daemon: Daemon, stub: CacheServiceStub
) -> None:
    user = fresh_id("u")
    sample_objects.put_in_folder(daemon.origin_dir, sample_objects.person(user))
    assert get_human(stub, user, origin_after=moment(time.time() + 9999)).tensors


def test_a_miss_without_an_owner_asks_for_the_owner_and_a_hit_does_not(
    daemon: Daemon, stub: CacheServiceStub
) -> None:
    clothing, owner = fresh_id("c"), fresh_id("o")
    samples = (sample_objects.garment(clothing, owner), sample_objects.text(clothing, owner))
    sample_objects.put_in_folder(daemon.origin_dir, *samples)
    text_request = pb.GetTextRequest(clothing_id=clothing)
    for call in (
        lambda: get_garment(stub, clothing),
        lambda: stub.GetText(text_request),
        lambda: list(stub.Get(pb.GetRequest(key=key(clothing)))),
    ):
        with refused() as refusal:
            call()
        assert refusal.status == (Code.FAILED_PRECONDITION, "OWNER_REQUIRED")
    get_garment(stub, clothing, owner)
    stub.GetText(pb.GetTextRequest(clothing_id=clothing, owner_id=owner))
    assert samples[0].matches(get_garment(stub, clothing).tensors)
    assert samples[1].matches(stub.GetText(text_request).entry.tensors)


def test_a_wrong_owner_poisons_nobody(daemon: Daemon, stub: CacheServiceStub) -> None:
    clothing, owner = fresh_id("c"), fresh_id("o")
    sample_objects.put_in_folder(daemon.origin_dir, sample_objects.garment(clothing, owner))
    with refused() as refusal:
        get_garment(stub, clothing, fresh_id("wrong"))
    assert refusal.code is Code.NOT_FOUND
    assert get_garment(stub, clothing, owner).info.tier == pb.TIER_ORIGIN


VERSION_CALLS: dict[str, Callable[[CacheServiceStub], Any]] = {
    "GetHuman": lambda stub: get_human(stub, "u", kind_version="other-model"),
    "GetGarment": lambda stub: get_garment(stub, "c", "o", kind_version="other-model"),
    "GetText": lambda stub: stub.GetText(
        pb.GetTextRequest(clothing_id="c", owner_id="o", kind_version="other-model")
    ),
    "GetTryOn human": lambda stub: stub.GetTryOn(
        pb.GetTryOnRequest(
            user_id="u", category=UPPER, clothing_id="c", human_kind_version="other-model"
        )
    ),
    "GetTryOn garment": lambda stub: stub.GetTryOn(
        pb.GetTryOnRequest(
            user_id="u", category=UPPER, clothing_id="c", garment_kind_version="other-model"
        )
    ),
    "GetTryOn text": lambda stub: stub.GetTryOn(
        pb.GetTryOnRequest(
            user_id="u", category=UPPER, clothing_id="c", text_kind_version="other-model"
        )
    ),
}


@pytest.mark.parametrize("name", VERSION_CALLS)
def test_another_models_tensors_are_never_served(stub: CacheServiceStub, name: str) -> None:
    with refused() as refusal:
        VERSION_CALLS[name](stub)
    assert refusal.status == (Code.FAILED_PRECONDITION, "KIND_VERSION_MISMATCH")


def test_a_blob_that_is_not_its_kinds_is_refused(stub: CacheServiceStub) -> None:
    """Promise 2."""
    garment = sample_objects.garment("c", "o").blob()
    for blob in (b"", b"not safetensors", garment, garment[:-1]):
        with refused() as refusal:
            put(stub, "human_upper_body", fresh_id("u"), blob)
        assert refusal.code is Code.INVALID_ARGUMENT
        assert refusal.reason


def test_a_second_header_in_a_put_is_refused(stub: CacheServiceStub) -> None:
    with refused() as refusal:
        send(stub, header(key=key("c")), header(key=key("c")))
    assert refusal.status == (Code.INVALID_ARGUMENT, "INVALID_STREAM")


def test_persisting_a_garment_needs_its_owner(stub: CacheServiceStub) -> None:
    with refused() as refusal:
        put(stub, "garment", fresh_id("c"), sample_objects.garment("c", "o").blob(), persist=True)
    assert refusal.status == (Code.INVALID_ARGUMENT, "OWNER_REQUIRED")


def test_a_put_from_before_the_last_change_is_outdated(stub: CacheServiceStub) -> None:
    """Promise 1."""
    user, blob = fresh_id("u"), sample_objects.person("u").blob()
    changed_at = time.time() - 30
    stub.Invalidate(pb.InvalidateRequest(user_id=user, changed_at=moment(changed_at)))
    with refused() as refusal:
        put(stub, "human_upper_body", user, blob, as_of=moment(changed_at - 1))
    assert refusal.status == (Code.ABORTED, "PUT_OUTDATED")
    assert put(stub, "human_upper_body", user, blob, as_of=moment(changed_at + 1)).generation


def test_a_put_is_fenced_by_an_invalidation_during_its_stream(stub: CacheServiceStub) -> None:
    """Promise 1."""
    user = fresh_id("u")

    def messages() -> Any:
        yield header(key=key(user, "human_upper_body"))
        # Three chunks exceed the connection's window: the next one is asked for only after the
        # daemon has read the header.
        for _ in range(4):
            yield pb.PutRequest(data=bytes(1 << 20))
        stub.Invalidate(pb.InvalidateRequest(user_id=user))
        yield pb.PutRequest(data=b"the rest")

    with refused() as refusal:
        stub.Put(messages(), timeout=TIMEOUT_S)
    assert refusal.status == (Code.ABORTED, "PUT_FENCED")


def test_inspect_of_an_unknown_key_is_empty_and_asks_no_origin(stub: CacheServiceStub) -> None:
    before = stub.Stats(pb.StatsRequest()).fills
    answer = stub.Inspect(pb.InspectRequest(key=key(fresh_id("c"))))
    assert not answer.tiers
    assert not answer.filling
    assert stub.Stats(pb.StatsRequest()).fills == before


def test_inspect_shows_both_tiers_and_counts_as_no_access(
    daemon: Daemon, stub: CacheServiceStub
) -> None:
    clothing, owner = fresh_id("c"), fresh_id("o")
    sample_objects.put_in_folder(daemon.origin_dir, sample_objects.garment(clothing, owner))
    entry = get_garment(stub, clothing, owner)
    daemon.wait_until_stored()
    request = pb.InspectRequest(key=key(clothing))
    stub.Inspect(request)
    tiers = {held.tier: held for held in stub.Inspect(request).tiers}
    assert tiers.keys() == {pb.TIER_MEMORY, pb.TIER_DISK}
    assert tiers[pb.TIER_MEMORY].accesses == 1
    for held in tiers.values():
        assert held.owner_id == owner
        assert held.info.generation == entry.info.generation
        assert held.info.size_bytes == len(entry.tensors)


def test_warm_reports_what_failed_and_fetches_the_rest(
    daemon: Daemon, stub: CacheServiceStub
) -> None:
    user, clothing = fresh_id("u"), fresh_id("c")
    sample_objects.put_in_folder(
        daemon.origin_dir,
        *(sample_objects.person(user, part) for part in sample_objects.PARTS),
        sample_objects.garment(clothing, user),
    )
    request = pb.WarmRequest(user_id=user, garments=[pb.WarmGarment(clothing_id=clothing)])
    progress = list(stub.Warm(request, timeout=TIMEOUT_S))
    assert [step.done for step in progress] == [0, 1, 2, 3, 4, 5]
    assert {step.total for step in progress} == {5}
    failed = [step.failed for step in progress if step.HasField("failed")]
    assert [(f.key.namespace, f.key.id, f.reason) for f in failed] == [
        ("text", clothing, "NO_SUCH_OBJECT")
    ]
    for category in (UPPER, pb.HUMAN_CATEGORY_LOWER_BODY, pb.HUMAN_CATEGORY_DRESSES):
        assert get_human(stub, user, category).info.tier == pb.TIER_MEMORY


def test_delivery_none_says_that_it_exists_without_its_bytes(
    daemon: Daemon, stub: CacheServiceStub
) -> None:
    user = fresh_id("u")
    sample_objects.put_in_folder(daemon.origin_dir, sample_objects.person(user))
    entry = get_human(stub, user, delivery=pb.DELIVERY_NONE)
    assert entry.info.size_bytes > 0
    assert entry.WhichOneof("payload") is None
