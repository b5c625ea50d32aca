"""Can the in-memory clients do, and fail with, all that the real ones can? Promise 3."""

from __future__ import annotations

import inspect
import re
from functools import cache
from typing import Any

import grpc
import pytest

import cachesvc_client
from cachesvc_client import (
    Aborted,
    AsyncCacheClient,
    CacheClient,
    CacheServiceError,
    CacheUnavailable,
    CacheUnreachable,
    DeadlineExceeded,
    InvalidRequest,
    InvalidSettings,
    LocalOptions,
    NotCached,
    OriginUnavailable,
    Overloaded,
    PartStatus,
    UnreadableAnswer,
    Unsupported,
)
from cachesvc_client._arguments import METHODS
from cachesvc_client.errors import class_of
from cachesvc_client.testing import AsyncInMemoryCacheClient, InMemoryCacheClient, MemoryService
from cachesvc_client.v2 import TwoLevelCacheV2
from tests.client.support import values
from tests.client.support.blocking import Blocking
from tests.support.daemons import ROOT

Code = grpc.StatusCode
NAMES = {code.name: code for code in Code}
# Classes that no code and reason of a daemon lead to.
OF_THE_CLIENT: list[CacheServiceError] = [
    CacheUnreachable("no", reason="SOCKET_FORBIDDEN"),
    InvalidSettings("no", reason="UNKNOWN_USER"),
    UnreadableAnswer("no"),
    Unsupported("no"),
    DeadlineExceeded("no"),
    CacheUnavailable("no"),
]


@cache
def documented() -> list[CacheServiceError]:
    """Return an error for each code and reason of docs/errors.md."""
    found: list[CacheServiceError] = []
    text = (ROOT / "docs/errors.md").read_text()
    for section in re.split(r"^##+ ", text, flags=re.MULTILINE)[1:]:
        title, _, body = section.partition("\n")
        of_title = [NAMES[word] for word in re.findall(r"[A-Z_]+", title) if word in NAMES]
        for row in re.findall(r"^- (.*?)(?::|\(none\))", body, flags=re.MULTILINE):
            of_row = [NAMES[word] for word in re.findall(r"\b[A-Z_]+\b", row) if word in NAMES]
            reasons = re.findall(r"`([A-Z_]+)`", row) or [""]
            if title.startswith("No way"):
                found += [CacheUnreachable("what", reason=reason) for reason in reasons]
                continue
            for code in of_row[:1] or of_title:
                found += [
                    class_of(code, reason)("what", code=code, reason=reason) for reason in reasons
                ]
    return found


def test_the_table_of_errors_is_read() -> None:
    seen = {(error.code, error.reason) for error in documented()}
    assert len(seen) > 90
    assert {
        (Code.UNAVAILABLE, "ORIGIN_TIMEOUT"),
        (Code.ABORTED, "PUT_OUTDATED"),
        (Code.FAILED_PRECONDITION, "KIND_VERSION_MISMATCH"),
        (Code.RESOURCE_EXHAUSTED, "TOO_MANY_PUTS"),
        (Code.UNAVAILABLE, "DRAINING"),
        (Code.DATA_LOSS, "PICKLE_REFUSED"),
        (Code.UNAVAILABLE, ""),
    } <= seen
    classes = {
        found
        for name in cachesvc_client.__all__
        if inspect.isclass(found := getattr(cachesvc_client, name))
        and issubclass(found, CacheServiceError)
    }
    assert classes == {type(error) for error in [*documented(), *OF_THE_CLIENT]}


@pytest.mark.parametrize("kind", ["stand-in", "async stand-in"])
def test_every_documented_error_can_be_raised_by_every_method(kind: str) -> None:
    service = MemoryService()
    client: Any = InMemoryCacheClient(service)
    if kind == "async stand-in":
        client = Blocking(AsyncInMemoryCacheClient(service))
    for planned in [*documented(), *OF_THE_CLIENT]:
        service.fail(planned, method="get_human")
        with pytest.raises(CacheServiceError) as caught:
            client.get_human("user-7")
        raised = caught.value
        assert raised is not planned
        assert type(raised) is type(planned)
        assert (raised.code, raised.reason, str(raised)) == (
            planned.code,
            planned.reason,
            str(planned),
        )
    calls = calls_of(client)
    assert {*calls} == {*METHODS}
    for name, call in calls.items():
        service.fail(Overloaded("busy", reason="TOO_MANY_FLIGHTS"), method=name)
        for other in calls.keys() - {name}:
            succeeds_or_is_absent(calls[other])
        with pytest.raises(Overloaded, match="busy"):
            call()
    client.close()


def calls_of(client: Any) -> dict[str, Any]:
    return {
        "get_human": lambda: client.get_human("user-7"),
        "get_garment": lambda: client.get_garment("coat-3", "user-2"),
        "get_text": lambda: client.get_text("coat-3", "user-2"),
        "get_tryon": lambda: client.get_tryon("user-7", "coat-3"),
        "get": lambda: client.get("garment", "coat-3", "user-2"),
        "put": lambda: client.put_garment("coat-4", **values.garment()),
        "invalidate": lambda: client.invalidate(user_id="user-7"),
        "warm": lambda: list(client.warm("user-7")),
        "inspect": lambda: client.inspect("garment", "coat-3"),
        "stats": lambda: client.stats(),
    }


def succeeds_or_is_absent(call: Any) -> None:
    try:
        call()
    except NotCached:
        return


def test_a_failure_is_raised_as_often_as_planned_and_then_no_more() -> None:
    service = MemoryService()
    client = InMemoryCacheClient(service)
    client.put_human("user-7", **values.human())
    service.fail(OriginUnavailable("S3 is away", reason="ORIGIN_TIMEOUT"), times=2)
    service.fail(Aborted("too late", reason="PUT_OUTDATED"), method="put")
    for _ in range(2):
        with pytest.raises(OriginUnavailable):
            client.get_human("user-7")
    with pytest.raises(Aborted) as caught:
        client.put_human("user-7", **values.human(2))
    assert caught.value.reason == "PUT_OUTDATED"
    assert client.get_human("user-7").is_current()
    service.fail(CacheUnavailable("away"), times=100)
    service.recover()
    assert client.get_human("user-7").is_current()
    service.fail(Overloaded("busy"), method="warm")
    with pytest.raises(Overloaded):
        client.prefetch([("user-7", "coat-3")]).result(20)


def test_an_absence_names_what_was_asked_for_and_parts_are_those_planned() -> None:
    service = MemoryService()
    client = InMemoryCacheClient(service)
    service.fail(NotCached("old", reason="ORIGIN_OUTDATED"))
    with pytest.raises(NotCached) as caught:
        client.get_text("coat-3")
    assert caught.value.missing == ("text",)
    parts = (
        PartStatus("human", Code.OK, "", ""),
        PartStatus("garment", Code.NOT_FOUND, "NO_SUCH_OBJECT", "absent"),
    )
    service.fail(NotCached("absent", reason="NO_SUCH_OBJECT", parts=parts))
    with pytest.raises(NotCached) as caught:
        client.get_tryon("user-7", "coat-3")
    assert caught.value.missing == ("garment",)


def test_a_wrong_plan_is_refused() -> None:
    service = MemoryService()
    wrong: list[dict[str, Any]] = [
        {"error": ValueError("x")},
        {"error": OriginUnavailable},
        {"error": Overloaded("x"), "method": "put_shoes"},
        {"error": Overloaded("x"), "times": 0},
        {"error": Overloaded("x"), "times": True},
    ]
    for arguments in wrong:
        with pytest.raises(InvalidRequest, match="must be"):
            service.fail(**arguments)


@pytest.mark.parametrize(
    ("stand_in", "real"),
    [(InMemoryCacheClient, CacheClient), (AsyncInMemoryCacheClient, AsyncCacheClient)],
)
def test_the_stand_ins_have_the_signatures_of_the_real_clients(stand_in: type, real: type) -> None:
    for name, member in inspect.getmembers(real, callable):
        if not name.startswith("_"):
            assert inspect.signature(getattr(stand_in, name)) == inspect.signature(member)
    theirs = inspect.signature(real).parameters
    ours = dict(inspect.signature(stand_in).parameters)
    assert ours.pop("service").default is None
    assert [*ours] == [*theirs]
    for name, parameter in theirs.items():
        assert ours[name].annotation == parameter.annotation
        if name != "local":  # shared files are off
            assert ours[name].default == parameter.default


def test_the_arguments_of_a_real_client_open_and_connect_nothing() -> None:
    client = InMemoryCacheClient(
        target="cache.example.org:50051",
        tls=cachesvc_client.TlsFiles("/nobody/ca.pem"),
        token="secret",
        daemon_user="nobody-at-all",
        local=LocalOptions(max_entries=1),
        wait_s=1,
        timeout_s=1,
    )
    assert client.stats().puts == 0
    assert client.transport == "inline: shared files are switched off"


async def test_v2s_class_takes_a_stand_in() -> None:
    service = MemoryService()
    cache = TwoLevelCacheV2(client=InMemoryCacheClient(service))
    person = values.human()
    cache.put_human("user-7", "upper_body", person)
    cache.put_garment("coat-3", values.garment(), owner_id="user-2")
    cache.put_text("coat-3", values.text())
    found = await cache.get_human("user-7")
    assert found is not None
    assert found["mask"].tobytes() == person["mask"].tobytes()
    assert await cache.get_garment("coat-3", "user-2") is not None
    assert await cache.get_text("coat-4") is None
    service.fail(OriginUnavailable("S3 is away", reason="ORIGIN_TIMEOUT"))
    with pytest.raises(OriginUnavailable):
        await cache.get_human("user-8")
    assert cache.clear_human("user-7") == 1
    assert await cache.get_human("user-7") is None
    assert cache.get_stats()["errors"] == 0
    await cache.aclose()
    for wrong in (MemoryService(), AsyncInMemoryCacheClient(), "client"):
        with pytest.raises(InvalidSettings, match="client must be a CacheClient, not"):
            TwoLevelCacheV2(client=wrong)  # type: ignore[arg-type]
