"""What every client promises: run over the stand-ins, a scripted server and the real daemon."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from typing import Any

import grpc
import numpy as np
import pytest
import torch

from cachesvc_client import (
    Aborted,
    AsyncCacheClient,
    CacheClient,
    EntryKey,
    InvalidRequest,
    NotCached,
    PreconditionFailed,
    PutOptions,
)
from cachesvc_client.testing import AsyncInMemoryCacheClient, InMemoryCacheClient
from tests.client.support import values
from tests.client.support.blocking import Blocking
from tests.client.support.scripted_server import ScriptedServer

OWNER = "owner-of-clothes"


KINDS = ["stand-in", "async stand-in", "server", "async server", "daemon", "async daemon"]


@pytest.fixture(params=KINDS)
def cache(request: pytest.FixtureRequest) -> Iterator[Any]:
    """A client of each kind. All tests share one daemon, so use fresh ids."""
    yield from _client(request, lambda: request.getfixturevalue("daemon_target"))


@pytest.fixture(params=KINDS)
def cache_of_its_own(request: pytest.FixtureRequest) -> Iterator[Any]:
    """As `cache`, with a daemon that no other test uses: for tests that concern every key."""
    yield from _client(request, lambda: request.getfixturevalue("new_daemon")().target)


def _client(request: pytest.FixtureRequest, daemon_target: Callable[[], str]) -> Iterator[Any]:
    kind: str = request.param
    client: Any
    if kind.endswith("stand-in"):
        client = InMemoryCacheClient() if kind == "stand-in" else AsyncInMemoryCacheClient()
    else:
        target = daemon_target() if kind.endswith("daemon") else _server(request).target
        client = AsyncCacheClient(target) if kind.startswith("async") else CacheClient(target)
    if kind.startswith("async"):
        client = Blocking(client)
    yield client
    client.close()


def _server(request: pytest.FixtureRequest) -> ScriptedServer:
    server = request.getfixturevalue("server")
    assert isinstance(server, ScriptedServer)
    return server


def now() -> datetime:
    return datetime.now(timezone.utc)  # noqa: UP017 - this file also runs on Python 3.10


def test_a_put_person_comes_back_field_for_field(cache: Any) -> None:
    user, person = values.fresh_id("u"), values.human()
    stored = cache.put_human(user, "lower_body", **person)
    entry = cache.get_human(user, "lower_body")
    assert set(entry.layout) == set(person)
    assert torch.equal(entry["pose_tensor"], person["pose_tensor"])
    for name in ("human_img", "mask", "mask_gray"):
        assert entry.image(name).mode == person[name].mode
        assert entry.image(name).tobytes() == person[name].tobytes()
    assert entry.info.key == EntryKey("human_lower_body", user)
    assert entry.info.generation == stored.generation
    assert entry.info.size_bytes == len(entry.blob)


def test_a_put_garment_and_its_text_come_back(cache: Any) -> None:
    clothing, clothes, words = values.fresh_id("c"), values.garment(), values.text()
    cache.put_garment(clothing, **clothes)
    cache.put_text(clothing, **words)
    assert torch.equal(cache.get_garment(clothing)["garm_tensor"], clothes["garm_tensor"])
    entry = cache.get_text(clothing)
    assert all(torch.equal(entry[name], value) for name, value in words.items())


def test_the_streamed_get_gives_the_same_bytes(cache: Any) -> None:
    user = values.fresh_id("u")
    person = {**values.human(), "pose_tensor": values.tensor(1, 3, 700, 700)}
    cache.put_human(user, **person)
    streamed = cache.get("human_upper_body", user)
    assert bytes(streamed.blob) == bytes(cache.get_human(user).blob)
    streamed["pose_tensor"][0] = 0


def test_what_was_never_put_is_not_cached_and_names_the_part(cache: Any) -> None:
    with pytest.raises(NotCached) as caught:
        cache.get_human(values.fresh_id("u"))
    assert caught.value.missing == ("human",)
    assert caught.value.code is grpc.StatusCode.NOT_FOUND
    with pytest.raises(NotCached) as caught:
        cache.get_text(values.fresh_id("c"), OWNER)
    assert caught.value.missing == ("text",)


def test_a_missing_garment_without_an_owner_asks_for_the_owner(cache: Any) -> None:
    with pytest.raises(PreconditionFailed) as caught:
        cache.get_garment(values.fresh_id("c"))
    assert caught.value.reason == "OWNER_REQUIRED"


def test_a_tryon_has_all_three_entries_as_pipe_arguments(cache: Any) -> None:
    user, clothing = values.fresh_id("u"), values.fresh_id("c")
    person, clothes, words = values.human(), values.garment(), values.text()
    cache.put_human(user, **person)
    cache.put_garment(clothing, **clothes)
    cache.put_text(clothing, **words)
    inputs = cache.get_tryon(user, clothing).pipe_inputs(dtype=torch.float32)
    assert torch.equal(inputs["pose_img"], person["pose_tensor"].float())
    assert torch.equal(inputs["cloth"], clothes["garm_tensor"].float())
    assert torch.equal(inputs["text_embeds_cloth"], words["prompt_embeds_c"].float())
    assert torch.equal(inputs["prompt_embeds"], words["prompt_embeds"].float())
    assert inputs["image"].tobytes() == person["human_img"].tobytes()
    assert inputs["mask_image"].tobytes() == person["mask"].tobytes()
    assert inputs["ip_adapter_image"].tobytes() == clothes["garm_img"].tobytes()
    assert "mask_gray" not in inputs


def test_an_incomplete_tryon_names_exactly_the_missing_parts(cache: Any) -> None:
    user, clothing = values.fresh_id("u"), values.fresh_id("c")
    cache.put_garment(clothing, **values.garment())
    with pytest.raises(NotCached) as caught:
        cache.get_tryon(user, clothing, owner_id=OWNER)
    assert caught.value.missing == ("human", "text")
    assert [part.code for part in caught.value.parts] == [
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.OK,
        grpc.StatusCode.NOT_FOUND,
    ]


def test_invalidating_a_person_removes_every_category_and_nobody_else(cache: Any) -> None:
    user, other = values.fresh_id("u"), values.fresh_id("u")
    for name, category in ((user, "upper_body"), (user, "dresses"), (other, "upper_body")):
        cache.put_human(name, category, **values.human())
    assert cache.invalidate(user_id=user).removed_count == 2
    for category in ("upper_body", "dresses"):
        with pytest.raises(NotCached):
            cache.get_human(user, category)
    assert cache.get_human(other).info.key.id == other


def test_invalidating_clothing_removes_its_text_too(cache: Any) -> None:
    clothing = values.fresh_id("c")
    cache.put_garment(clothing, **values.garment())
    cache.put_text(clothing, **values.text())
    assert cache.invalidate(clothing_id=clothing).removed_count == 2
    with pytest.raises(NotCached):
        cache.get_text(clothing, OWNER)


def test_invalidating_an_owner_follows_the_owner_of_the_put(cache: Any) -> None:
    read_at = now() - timedelta(seconds=1)
    owner, theirs, others = (values.fresh_id(name) for name in ("o", "c", "c"))
    cache.put_garment(theirs, owner_id=owner, **values.garment())
    cache.put_garment(others, owner_id=OWNER, **values.garment())
    assert cache.invalidate(owner_id=owner).removed_count == 1
    with pytest.raises(NotCached):
        cache.get_garment(theirs, owner)
    assert cache.get_garment(others).info.key.id == others
    with pytest.raises(Aborted):
        cache.put_garment(theirs, owner_id=owner, as_of=read_at, **values.garment())


def test_a_checked_put_is_judged_and_not_stored(cache: Any) -> None:
    read_at = now() - timedelta(seconds=1)
    clothing, fields = values.fresh_id("c"), values.garment()
    assert cache.check_put("garment", clothing, fields, options=PutOptions(OWNER)) is True
    with pytest.raises(NotCached):
        cache.get_garment(clothing, OWNER)
    cache.invalidate(clothing_id=clothing)
    with pytest.raises(Aborted) as refused:
        cache.check_put("garment", clothing, fields, options=PutOptions(OWNER, read_at))
    assert (refused.value.reason, refused.value.sources_from) == ("PUT_OUTDATED", None)
    with pytest.raises(InvalidRequest):
        cache.check_put("garment", clothing, {"garm_img": fields["garm_img"]})


def test_invalidating_one_key_leaves_the_persons_other_categories(cache: Any) -> None:
    user = values.fresh_id("u")
    cache.put_human(user, "upper_body", **values.human())
    cache.put_human(user, "dresses", **values.human())
    assert cache.invalidate(key=("human_dresses", user)).removed_count == 1
    assert cache.get_human(user).info.key.namespace == "human_upper_body"


@pytest.mark.parametrize("target", [{"namespace": "text"}, {"everything": True}])
def test_a_whole_namespace_or_everything_can_be_invalidated(
    cache_of_its_own: Any, target: dict[str, Any]
) -> None:
    cache, read_at = cache_of_its_own, now() - timedelta(seconds=1)
    cache.put_text("c1", **values.text())
    assert cache.invalidate(**target).removed_count == 1
    with pytest.raises(NotCached):
        cache.get_text("c1", OWNER)
    # This holds for a key that was not cached, too: a source read before is outdated.
    with pytest.raises(Aborted):
        cache.put_text("c2", as_of=read_at, **values.text())
    cache.put_text("c2", **values.text())


def test_invalidate_wants_exactly_one_target(cache: Any) -> None:
    with pytest.raises(InvalidRequest):
        cache.invalidate()
    with pytest.raises(InvalidRequest):
        cache.invalidate(user_id="a", clothing_id="b")


def test_a_put_read_before_the_last_change_is_aborted(cache: Any) -> None:
    user, read_at = values.fresh_id("u"), now()
    cache.invalidate(user_id=user)
    with pytest.raises(Aborted) as caught:
        cache.put_human(user, as_of=read_at - timedelta(seconds=1), **values.human())
    assert caught.value.reason == "PUT_OUTDATED"
    cache.put_human(user, **values.human())
    assert cache.get_human(user).is_current()


def test_origin_after_refuses_an_entry_that_was_read_earlier(cache_of_its_own: Any) -> None:
    # On the shared daemon, another test's invalidation of everything would be later than this Put.
    cache, user = cache_of_its_own, values.fresh_id("u")
    read_at = now() - timedelta(minutes=5)
    cache.put_human(user, as_of=read_at, **values.human())
    assert cache.get_human(user, origin_after=read_at).info.origin_time is not None
    with pytest.raises(NotCached):
        cache.get_human(user, origin_after=now() - timedelta(minutes=1))


def test_an_entry_is_current_until_it_is_replaced_or_invalidated(cache: Any) -> None:
    user = values.fresh_id("u")
    cache.put_human(user, **values.human(1))
    first = cache.get_human(user)
    assert first.is_current()
    cache.put_human(user, **values.human(2))
    second = cache.get_human(user)
    assert (first.is_current(), second.is_current()) == (False, True)
    cache.invalidate(user_id=user)
    assert not second.is_current()


def test_each_get_has_bytes_of_its_own(cache: Any) -> None:
    user, person = values.fresh_id("u"), values.human()
    cache.put_human(user, **person)
    cache.get_human(user)["pose_tensor"].zero_()
    assert torch.equal(cache.get_human(user)["pose_tensor"], person["pose_tensor"])


def test_another_models_version_is_refused(cache: Any) -> None:
    user = values.fresh_id("u")
    cache.put_human(user, **values.human())
    with pytest.raises(PreconditionFailed) as caught:
        cache.get_human(user, kind_version="another-model")
    assert caught.value.reason == "KIND_VERSION_MISMATCH"
    with pytest.raises(PreconditionFailed) as streamed:
        cache.get("human_upper_body", user, kind_version="another-model")
    assert streamed.value.reason == "KIND_VERSION_MISMATCH"
    assert "has no version" in caught.value.message
    assert "expects 'another-model'" in streamed.value.message


@pytest.mark.parametrize("user_id", ["", "..", "a/b", "a" * 129, "ü"])
def test_a_bad_id_is_an_invalid_request(cache: Any, user_id: str) -> None:
    with pytest.raises(InvalidRequest):
        cache.get_human(user_id)


def test_bad_arguments_are_refused_before_anything_is_sent(cache: Any) -> None:
    with pytest.raises(InvalidRequest, match="category"):
        cache.get_human("u", "shoes")
    with pytest.raises(InvalidRequest, match="time zone"):
        cache.get_human("u", origin_after=datetime(2026, 1, 1))
    with pytest.raises(InvalidRequest, match="mask must be a PIL image"):
        cache.put_human("u", **{**values.human(), "mask": np.zeros((4, 4), np.uint8)})


def test_an_unknown_part_is_refused_also_when_all_parts_are_at_hand(cache: Any) -> None:
    user, clothing = values.fresh_id("u"), values.fresh_id("c")
    cache.put_human(user, **values.human())
    cache.put_garment(clothing, owner_id=user, **values.garment())
    cache.put_text(clothing, owner_id=user, **values.text())
    for _ in range(2):
        cache.get_tryon(user, clothing)
        with pytest.raises(InvalidRequest) as caught:
            cache.get_tryon(user, clothing, kind_versions={"shoes": "1"})
        assert caught.value.reason == "UNKNOWN_PART"


def test_an_unknown_namespace_is_refused(cache: Any) -> None:
    with pytest.raises(InvalidRequest) as caught:
        cache.get("shoes", "s1")
    assert caught.value.reason == "UNKNOWN_NAMESPACE"


def test_a_put_whose_fields_are_not_the_kinds_is_refused(cache: Any) -> None:
    clothing = values.fresh_id("c")
    with pytest.raises(InvalidRequest):
        cache.put("text", clothing, values.garment())
    with pytest.raises(NotCached):
        cache.get_text(clothing, OWNER)


def test_inspect_tells_what_is_held_and_touches_nothing(cache: Any) -> None:
    user = values.fresh_id("u")
    assert cache.inspect("human_upper_body", user).tiers == ()
    stored = cache.put_human(user, ttl=timedelta(hours=1), **values.human())
    found = cache.inspect("human_upper_body", user)
    assert found.key == EntryKey("human_upper_body", user)
    assert {tier.info.generation for tier in found.tiers} == {stored.generation}
    assert timedelta(minutes=55) < found.tiers[0].expires_in <= timedelta(hours=1)


def test_warm_reports_each_key_and_those_that_fail(cache: Any) -> None:
    user, clothing = values.fresh_id("u"), values.fresh_id("c")
    cache.put_human(user, **values.human())
    progress = list(cache.warm(user, categories=["upper_body"], garments=[(clothing, OWNER)]))
    assert (progress[0].done, progress[0].total) == (0, 3)
    assert (progress[-1].done, progress[-1].total) == (3, 3)
    failed = {step.failed.key: step.failed.reason for step in progress if step.failed}
    assert failed == {
        EntryKey("garment", clothing): "NO_SUCH_OBJECT",
        EntryKey("text", clothing): "NO_SUCH_OBJECT",
    }


def test_prefetch_ends_with_what_failed_for_all_persons(cache: Any) -> None:
    here, away, clothing = (values.fresh_id(name) for name in ("u", "u", "c"))
    cache.put_human(here, **values.human())
    cache.put_garment(clothing, **values.garment())
    cache.put_text(clothing, **values.text())
    summary = cache.prefetch([(here, clothing), (away, clothing, "dresses"), (here, clothing)])
    done = summary.result(20)
    assert (done.done, done.total) == (6, 6)
    assert [failure.key for failure in done.failed] == [EntryKey("human_dresses", away)]


def test_stats_count_hits_misses_and_puts(cache: Any) -> None:
    before, user = cache.stats(), values.fresh_id("u")
    cache.put_human(user, **values.human())
    cache.get_human(user)
    with pytest.raises(NotCached):
        cache.get_human(values.fresh_id("u"))
    after = cache.stats()
    assert after.puts - before.puts == 1
    assert after.requests.not_found - before.requests.not_found == 1
    hits = after.requests.memory_hits + after.requests.disk_hits
    assert hits - before.requests.memory_hits - before.requests.disk_hits == 1
