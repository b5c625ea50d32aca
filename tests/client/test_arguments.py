"""Is a wrong argument refused by its name, with what it must be and what was given?

Every public argument has a case here: the tests read the signatures, so that an argument without
a case fails.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from collections.abc import Callable, Iterator
from datetime import date, datetime, timedelta, timezone
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

import cachesvc_client
from cachesvc_client import (
    AsyncCacheClient,
    CacheClient,
    CacheServiceError,
    Entry,
    InvalidRequest,
    InvalidSettings,
    LocalOptions,
    PutOptions,
    TlsFiles,
    TryOn,
    fastapi,
)
from cachesvc_client.fastapi import cache_router
from cachesvc_client.testing import AsyncInMemoryCacheClient, InMemoryCacheClient, MemoryService
from cachesvc_client.v2 import TwoLevelCacheV2
from tests.client.support import values

NAIVE = datetime(2026, 1, 1)
AWARE = datetime(2026, 1, 1, tzinfo=timezone.utc)  # noqa: UP017 - also Python 3.10
NOT_TEXT = [7, None, b"u", np.int64(7), ["u"], True]
NOT_IDS = [*NOT_TEXT, "", "a/b", "..", "a" * 129, "\ud800", "ü"]
NOT_MOMENTS = ["2026-01-01", 1767225600, date(2026, 1, 1), NAIVE, True]
NOT_SECONDS = ["3", b"3", True, -1, float("nan"), float("inf"), timedelta(seconds=3), [3]]
NOT_FLAGS = [None, 1, 0, "yes", np.bool_(True)]
NOT_COUNTS = [None, "3", 2.5, -1, True]
NOT_IMAGES = [None, "a.png", b"png", np.zeros((4, 4), np.uint8), torch.zeros(4, 4)]
NOT_TENSORS = [None, 1.5, [[1.0]], b"x", values.image("L")]
NOT_FIELDS = [None, "fields", [("a", 1)], {1: values.tensor(1)}, {"a": "text"}]
NOT_CATEGORIES = [None, 7, "shoes", "", b"upper_body", ["upper_body"]]
NOT_MANY = [None, 7, "upper_body", b"x", {"upper_body": 1}]
NOT_NUMBERS = ["10", b"10", True, [1]]
NOT_FILES = [7, None, b"ca.pem", ["ca.pem"]]

# Wrong values of each public argument, by its name.
WRONG: dict[str, list[Any]] = {
    **dict.fromkeys(("user_id", "clothing_id", "id"), NOT_IDS),
    "owner_id": [*NOT_TEXT, "a/b", "a" * 129],
    "namespace": [*NOT_TEXT, ""],
    "category": NOT_CATEGORIES,
    **dict.fromkeys(("origin_after", "as_of", "changed_at"), NOT_MOMENTS),
    "kind_version": [7, None, b"v1", 1.5, "\ud800"],
    "kind_versions": [7, "v1", [("human", "v1")], {"shoes": "v1"}, {"human": 7}, {"text": None}],
    "timeout_s": NOT_SECONDS,
    "wait_s": [*NOT_SECONDS, None],
    "ttl": [60, "1h", timedelta(0), timedelta(seconds=-1), timedelta(days=367), True],
    **dict.fromkeys(("persist", "erase", "non_blocking"), NOT_FLAGS),
    "everything": [1, 0, "yes"],
    **dict.fromkeys(("human_img", "mask", "mask_gray", "garm_img"), NOT_IMAGES),
    **dict.fromkeys(("pose_tensor", "garm_tensor", *values.TEXT_SHAPES), NOT_TENSORS),
    **dict.fromkeys(("fields", "data"), NOT_FIELDS),
    "options": [7, "options", ("user-2", None, None, False), {"persist": True}],
    "categories": [*NOT_MANY, ["shoes"], [None], [7]],
    "garments": [*NOT_MANY, [7], [("coat-3",)], [("coat-3", "user-2", "x")], [("coat-3", 7)]],
    "tryons": [*NOT_MANY, [7], ["user-8"], [("user-8",)], [("user-8", "coat-3", "shoes")]],
    "key": [7, "garment", ("garment",), ("garment", 7), (7, "coat-3"), ("garment", "a/b")],
    "target": [7, b"/run/x.sock", True, ["a"]],
    "credentials": ["credentials", 7, True],
    "tls": [("ca.pem", "", ""), "ca.pem", 7],
    **dict.fromkeys(("ca_file", "cert_file", "key_file"), NOT_FILES),
    "token": [7, b"token", "two words", "ü", "line\n"],
    "daemon_user": [b"root", 1.5, True, -1, ["root"]],
    "local": [None, True, 256, {"enabled": False}],
    **dict.fromkeys(("max_entries", "max_bytes"), NOT_COUNTS),
    **dict.fromkeys(("share_mappings", "enabled"), NOT_FLAGS),
    "service": [7, "service", InMemoryCacheClient],
    "extra_fields": [7, "depth", {"depth": "depth_img"}, {"a/b": ("x",)}, {"depth": (7,)}],
    "client": [None, "client", MemoryService()],
    "device": [1.5, b"cuda", True, ["cpu"]],
    "dtype": ["float16", np.float16, float],
    "ssd_root": [7, b"/var", ["/var"]],
    **dict.fromkeys(
        (
            "l1_max_users",
            "l1_human_limit",
            "l1_max_garments",
            "l1_garment_limit",
            "ttl_hours",
            "max_disk_usage_gb",
            "ssd_limit_gb",
        ),
        NOT_NUMBERS,
    ),
}
# Where None or another value of WRONG is right.
RIGHT: dict[tuple[str, str], list[Any]] = {
    **{(name, "owner_id"): [None] for name in ("invalidate",)},
    **{(name, "user_id"): [None] for name in ("invalidate",)},
    **{(name, "clothing_id"): [None] for name in ("invalidate",)},
    **{(name, "namespace"): [None] for name in ("invalidate",)},
    ("warm", "user_id"): [""],
}
ALSO_WRONG: dict[tuple[str, str], list[Any]] = {
    ("__init__", "timeout_s"): [None],
    ("warm", "timeout_s"): [None],
    ("prefetch", "timeout_s"): [None],
    ("invalidate", "owner_id"): [""],
}
# What the other arguments are, while one is wrong.
BASE: dict[str, dict[str, Any]] = {
    "get_human": {"user_id": "user-7"},
    "get_garment": {"clothing_id": "coat-3"},
    "get_text": {"clothing_id": "coat-3"},
    "get_tryon": {"user_id": "user-7", "clothing_id": "coat-3"},
    "get": {"namespace": "garment", "id": "coat-3"},
    "put_human": {"user_id": "user-7", **values.human()},
    "put_garment": {"clothing_id": "coat-3", **values.garment()},
    "put_text": {"clothing_id": "coat-3", **values.text()},
    "put": {"namespace": "garment", "id": "coat-3", "fields": values.garment()},
    "check_put": {"namespace": "garment", "id": "coat-3", "fields": values.garment()},
    "invalidate": {},
    "warm": {"user_id": "user-7"},
    "prefetch": {"tryons": [("user-7", "coat-3")]},
    "inspect": {"namespace": "garment", "id": "coat-3"},
}
TARGETS = {"user_id", "clothing_id", "owner_id", "namespace", "key", "everything"}
NO_ARGUMENTS = {"close", "transport"}
V2_BASE: dict[str, dict[str, Any]] = {
    "get_human": {"user_id": "user-7"},
    "get_garment": {"clothing_id": "coat-3"},
    "get_text": {"clothing_id": "coat-3"},
    "put_human": {"user_id": "user-7", "category": "dresses", "data": values.human()},
    "put_garment": {"clothing_id": "coat-3", "data": values.garment()},
    "put_text": {"clothing_id": "coat-3", "data": values.text()},
    "clear_human": {"user_id": "user-7"},
    "clear_garment": {"clothing_id": "coat-3"},
}
V2_NONE_IS_RIGHT = {"owner_id"}
CONSTRUCTORS: list[Callable[..., Any]] = [
    CacheClient,
    AsyncCacheClient,
    LocalOptions,
    InMemoryCacheClient,
    AsyncInMemoryCacheClient,
    MemoryService,
    TwoLevelCacheV2,
    cache_router,
]
# Only the client makes these; `TryOnKey` and `PutOptions` are checked where they are used.
MADE_BY_THE_CLIENT = {
    "Entry", "AsyncEntry", "TryOn", "EntryInfo", "EntryKey", "Tier", "Inspection", "InspectedTier",
    "Invalidated", "WarmProgress", "WarmFailure", "WarmSummary",
    "PartStatus", "WarmUp", "AsyncWarmUp",
}  # fmt: skip


def public_methods(cls: type) -> Iterator[tuple[str, inspect.Signature]]:
    for name, member in inspect.getmembers(cls):
        if not name.startswith("_") and callable(member):
            yield name, inspect.signature(member)


def arguments_of(signature: inspect.Signature) -> list[str]:
    return [
        name
        for name, parameter in signature.parameters.items()
        if name != "self" and parameter.kind is not parameter.VAR_POSITIONAL
    ]


def cases(name: str, argument: str) -> list[Any]:
    right = RIGHT.get((name, argument), [])
    wrong = [value for value in WRONG[argument] if not any(value is one for one in right)]
    return wrong + ALSO_WRONG.get((name, argument), [])


def assert_refused(call: Callable[[], Any], argument: str, value: object) -> None:
    """The message has the argument's name, what it must be, and what was given."""
    # A field's own name stands for `fields`.
    names = (argument, "a must") if argument == "fields" else (argument,)
    with pytest.raises((InvalidRequest, InvalidSettings)) as caught:
        call()
    message = caught.value.message
    assert message.startswith(names) or f" {argument} must" in message, (value, message)
    assert " must be " in message, message
    assert ", not " in message or " has " in message, message
    assert caught.value.reason
    assert len(message) < 250


METHODS = [
    (name, argument)
    for name, signature in public_methods(CacheClient)
    if name not in NO_ARGUMENTS
    for argument in arguments_of(signature)
]


@pytest.mark.parametrize(("name", "argument"), METHODS)
def test_each_argument_of_each_method_is_checked_by_name(name: str, argument: str) -> None:
    with contextlib.closing(InMemoryCacheClient()) as client:
        method = getattr(client, name)
        for value in cases(name, argument):
            given = {**BASE.get(name, {}), argument: value}
            if name == "invalidate" and argument not in TARGETS:
                given["user_id"] = "user-7"
            assert_refused(partial(method, **given), argument, value)


@pytest.mark.parametrize(("name", "argument"), METHODS)
def test_the_asyncio_client_checks_the_same(name: str, argument: str) -> None:
    async def use(given: dict[str, Any]) -> None:
        client = AsyncInMemoryCacheClient()
        answer = getattr(client, name)(**given)
        if inspect.isawaitable(answer):
            await answer

    value = cases(name, argument)[0]
    given = {**BASE.get(name, {}), argument: value}
    if name == "invalidate" and argument not in TARGETS:
        given["user_id"] = "user-7"
    assert_refused(lambda: asyncio.run(use(given)), argument, value)


@pytest.mark.parametrize("of", CONSTRUCTORS, ids=lambda of: of.__name__)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_each_argument_of_each_constructor_is_checked_by_name(of: Callable[..., Any]) -> None:
    for argument in arguments_of(inspect.signature(of)):
        for value in cases("__init__", argument):
            if of is TwoLevelCacheV2 and argument == "client" and value is None:
                continue
            assert_refused(partial(of, **{argument: value}), argument, value)


def test_the_arguments_of_the_routes_module_are_checked_by_name() -> None:
    assert {*fastapi.__all__} == {"cache_router", "v2_cache_stats"}
    for value in (7, None, {"l1_hits": 1}, InMemoryCacheClient()):
        assert_refused(partial(fastapi.v2_cache_stats, value), "stats", value)
    assert fastapi.v2_cache_stats(InMemoryCacheClient().stats())["l1_hits"] == 0


def test_no_public_class_is_without_these_checks() -> None:
    classes = {
        name
        for name in cachesvc_client.__all__
        if inspect.isclass(found := getattr(cachesvc_client, name))
        and not issubclass(found, CacheServiceError)
    }
    checked = {of.__name__ for of in CONSTRUCTORS} | {"TlsFiles", "TryOnKey", "PutOptions"}
    assert classes <= checked | MADE_BY_THE_CLIENT


def test_the_files_of_tls_are_checked_where_they_are_used() -> None:
    for argument in TlsFiles._fields:
        for value in WRONG[argument]:
            files = TlsFiles(**{argument: value})
            assert_refused(files.credentials, argument, value)
            assert_refused(files.context, argument, value)
            target = "cache.example.org:50051"
            assert_refused(
                partial(CacheClient, target, tls=files),
                argument,
                value,
            )


def test_put_options_and_tryon_keys_are_checked_where_they_are_used() -> None:
    client = InMemoryCacheClient()
    for argument in PutOptions._fields:
        for value in cases("put", argument):
            options = PutOptions(**{argument: value})
            assert_refused(
                partial(client.put, "garment", "c", values.garment(), options=options),
                argument,
                value,
            )
    for argument in cachesvc_client.TryOnKey._fields:
        base = {"user_id": "user-7", "clothing_id": "coat-3"}
        for value in cases("prefetch", argument):
            key = cachesvc_client.TryOnKey(**{**base, argument: value})
            assert_refused(partial(client.prefetch, [key]), argument, value)


@pytest.mark.parametrize(
    ("name", "argument"),
    [
        (name, argument)
        for name, signature in public_methods(TwoLevelCacheV2)
        for argument in arguments_of(signature)
    ],
)
async def test_each_argument_of_v2s_methods_is_checked_by_name(name: str, argument: str) -> None:
    cache = TwoLevelCacheV2(target="/nobody/there.sock", wait_s=0)
    method = getattr(cache, name)

    async def use(given: dict[str, Any]) -> None:
        answer = method(**given)
        if inspect.isawaitable(answer):
            await answer

    for value in cases(name, argument):
        if value is None and argument in V2_NONE_IS_RIGHT:
            continue
        given = {**V2_BASE[name], argument: value}
        with pytest.raises(InvalidRequest) as caught:
            await use(given)
        message = caught.value.message
        assert " must be " in message, (argument, value, message)
        assert message.startswith((argument, "fields", "a")), (argument, message)
    await cache.aclose()


def an_entry() -> Entry:
    with contextlib.closing(InMemoryCacheClient()) as client:
        client.put_human("user-7", **values.human())
        return client.get_human("user-7")


def test_arguments_of_an_entry_are_checked_by_name() -> None:
    entry = an_entry()
    for argument in arguments_of(inspect.signature(Entry.torch)):
        for value in WRONG[argument]:
            assert_refused(partial(entry.torch, **{argument: value}), argument, value)
    tryon: TryOn[Entry] = TryOn(entry, entry, entry)
    for argument in arguments_of(inspect.signature(TryOn.pipe_inputs)):
        for value in WRONG[argument]:
            assert_refused(
                partial(tryon.pipe_inputs, **{argument: value}),
                argument,
                value,
            )
    for name in ("depth", 7, None, ["mask"]):
        for read in (entry.image, entry.__getitem__):
            with pytest.raises(KeyError, match=r"the fields are .*mask"):
                read(name)  # type: ignore[arg-type]


def test_a_message_says_what_was_given_but_never_an_id_or_a_token() -> None:
    client = InMemoryCacheClient()
    said = [
        (lambda: client.get_human(7), "user_id must be a str, not int"),  # type: ignore[arg-type]
        (lambda: client.get_human(None), "user_id must be a str, not None"),  # type: ignore[arg-type]
        (lambda: client.get_human(np.int64(7)), "user_id must be a str, not numpy.int64"),  # type: ignore[arg-type]
        (
            lambda: client.get_human("u", "shoes"),  # type: ignore[arg-type]
            "category must be one of upper_body, lower_body, dresses, not 'shoes'",
        ),
        (
            lambda: client.get_human("u", origin_after="2026-01-01"),  # type: ignore[arg-type]
            "origin_after must be a datetime with a time zone, or None, not str",
        ),
        (
            lambda: client.get_human("u", timeout_s="3"),
            "timeout_s must be a number of seconds, not str",
        ),  # type: ignore[arg-type]
    ]
    for call, message in said:
        with pytest.raises(InvalidRequest) as caught:
            call()
        assert caught.value.message == message
    for secret in ("secret user@example.org", "x" * 1000):
        with pytest.raises(InvalidRequest) as caught:
            client.get_human(secret)
        assert secret not in caught.value.message
        with pytest.raises(InvalidSettings) as refused:
            CacheClient("cache.example.org:50051", token=f"{secret} {secret}")
        assert secret not in refused.value.message


def test_values_that_mean_the_same_are_taken() -> None:
    client = InMemoryCacheClient()
    client.put_human("user-7", "dresses", **values.human())
    client.put_garment(str(np.str_("coat-3")), **values.garment())
    assert client.get_human(np.str_("user-7"), "dresses", timeout_s=np.float32(3)).info.size_bytes
    assert client.invalidate(key=["garment", "coat-3"]).removed_count == 1  # type: ignore[arg-type]
    steps = list(client.warm("user-7", categories={"dresses"}, garments=[["coat-3", "user-2"]]))  # type: ignore[list-item]
    assert steps[-1].total == 3
    assert client.prefetch(iter([["user-7", "coat-3"]])).result(20).total == 3  # type: ignore[list-item]


def test_a_hit_of_a_kept_entry_checks_as_a_miss_does(daemon_target: str) -> None:
    with CacheClient(daemon_target) as client:
        user, clothing = values.fresh_id("u"), values.fresh_id("c")
        client.put_human(user, **values.human())
        client.put_garment(clothing, owner_id=user, **values.garment())
        client.put_text(clothing, owner_id=user, **values.text())
        client.get_tryon(user, clothing)
        assert client.transport == "shared_file"
        for method in (client.get_human, client.get_garment, client.get_text, client.get_tryon):
            names = arguments_of(inspect.signature(method))
            right = {"user_id": user, "clothing_id": clothing}
            base = {name: value for name, value in right.items() if name in names}
            for argument in names:
                for value in WRONG[argument]:
                    # A wrong id or category was never kept, and a hit needs no time.
                    if type(value) not in (str, int, float):
                        wrong: Any = partial(method, **{**base, argument: value})
                        assert_refused(wrong, argument, value)


def test_a_wrong_argument_is_refused_also_while_no_daemon_is_there() -> None:
    with CacheClient("/nobody/there.sock", wait_s=0) as client:
        calls: list[Callable[[], Any]] = [
            lambda: client.get_human("a/b"),
            lambda: client.get_human("user-7", "shoes"),  # type: ignore[arg-type]
            lambda: client.get_human("user-7", origin_after=NAIVE),
            lambda: client.get_garment("coat-3", "a/b"),
            lambda: client.get_tryon("user-7", "coat-3", owner_id="a/b"),
        ]
        for call in calls:
            with pytest.raises(InvalidRequest):
                call()
