"""Can any id, over any edge, make the daemon touch a file that is not its own? Promises 7 and 10.

Seeded ids, made of what is special to paths, shells, keys and Unicode, are sent over gRPC and HTTP
in every field that takes an id. The daemon serves an id or refuses it for its form, as
`core/keys.py` says. A tree around the daemon's directories stays as it is, and the daemon makes
only names of its own below them.
"""

from __future__ import annotations

import random
import re
import unicodedata
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import grpc
import pytest

from cachesvc_proto.v1 import cache_pb2 as pb
from tests.conftest import NewDaemon
from tests.e2e.test_planted_names import snapshot
from tests.support import sample_objects
from tests.support.daemons import Daemon
from tests.support.grpc_calls import put_messages
from tests.support.http_calls import ask, ask_raw

QUICK_IDS = 250
LONG_IDS = 5_000
# Written independently of the product's expression.
GOOD = re.compile(r"\A[A-Za-z0-9][A-Za-z0-9._\-]{0,127}\Z", re.ASCII)
PIECES = (
    "..", ".", "/", "\\", "\0", "%2e", "%2F", "%00", "%", "-", "--", "_", "~", "*", "?", "#", ";",
    "|", "&", "$(id)", "`id`", "{owner}", "\n", "\r\n", "\t", " ", "\u00e9", "e\u0301", "\uff0e",
    "\uff0f", "\u2215", "\u202e", "\u200b", "\u0130", "\u0661", "\ufeff", "\U0001f600", "x" * 127,
    "x" * 4096, "etc/passwd", "outside", "file", "a", "Z", "7", "CON", ".tmp", ".quarantine",
)  # fmt: skip
FORMS = ("NFC", "NFD", "NFKC", "NFKD")


def hostile_ids(count: int) -> list[str]:
    chance = random.Random(20)
    made = ["", "..", "../..", "/", "\0", "-", "x" * 4096, "../outside/file", "good-1"]
    while len(made) < count:
        parts = chance.choices(PIECES, k=chance.randint(1, 5))
        name = "".join(parts)
        if chance.random() < 0.3:
            name = chance.choice(["../", "/", "./", "", "-"]) + name
        made.append(unicodedata.normalize(chance.choice(FORMS), name))
    return made


def _put(stub: Any, name: str) -> None:
    header = pb.PutHeader(key=pb.EntryKey(namespace="garment", id=name))
    blob = sample_objects.garment("any", "any").blob()
    stub.Put(put_messages(header, blob), timeout=20)


def _key(name: str) -> pb.EntryKey:
    return pb.EntryKey(namespace="garment", id=name)


# REQUEST_TOO_LARGE if the whole request is longer than any with good ids can be.
REFUSALS = (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.RESOURCE_EXHAUSTED)
UPPER = pb.HUMAN_CATEGORY_UPPER_BODY
# Every field that takes an id. The calls answer a good id differently; each refuses a bad one.
CALLS: dict[str, Callable[[Any, str], object]] = {
    "GetHuman": lambda stub, name: stub.GetHuman(
        pb.GetHumanRequest(user_id=name, category=UPPER), timeout=20
    ),
    "GetGarment": lambda stub, name: stub.GetGarment(
        pb.GetGarmentRequest(clothing_id=name, owner_id="owner"), timeout=20
    ),
    "GetTryOn": lambda stub, name: stub.GetTryOn(
        pb.GetTryOnRequest(user_id=name, category=UPPER, clothing_id=name), timeout=20
    ),
    "Get": lambda stub, name: list(
        stub.Get(pb.GetRequest(key=_key(name), owner_id="owner"), timeout=20)
    ),
    "Put": _put,
    "Invalidate a user": lambda stub, name: stub.Invalidate(
        pb.InvalidateRequest(user_id=name), timeout=20
    ),
    "Invalidate clothing": lambda stub, name: stub.Invalidate(
        pb.InvalidateRequest(clothing_id=name), timeout=20
    ),
    "Invalidate an owner": lambda stub, name: stub.Invalidate(
        pb.InvalidateRequest(owner_id=name), timeout=20
    ),
    "Invalidate a key": lambda stub, name: stub.Invalidate(
        pb.InvalidateRequest(key=_key(name)), timeout=20
    ),
    "Inspect": lambda stub, name: stub.Inspect(pb.InspectRequest(key=_key(name)), timeout=20),
    "Warm": lambda stub, name: list(
        stub.Warm(
            pb.WarmRequest(garments=[pb.WarmGarment(clothing_id=name, owner_id="o")]), timeout=20
        )
    ),
}
HTTP: dict[str, Callable[[Daemon, str], int]] = {
    "as it is": lambda daemon, name: _raw(daemon, b"/cache/human/" + _without_breaks(name)),
    "quoted": lambda daemon, name: _raw(daemon, b"/cache/garment/" + quote(name, safe="").encode()),
    "quoted twice": lambda daemon, name: _raw(
        daemon, b"/api/key/garment/" + quote(quote(name, safe=""), safe="").encode()
    ),
    "body": lambda daemon, name: (
        ask(daemon, "POST", "/cache/warmup", body={"user_id": name, "clothing_ids": [name]}).status
    ),
}


def _raw(daemon: Daemon, target: bytes) -> int:
    return ask_raw(daemon, target).status


def _without_breaks(name: str) -> bytes:
    # These characters end the path in a request's first line.
    return re.sub(rb"[\x00-\x20]", b"", name.encode())


def _refused_over_grpc(daemon: Daemon, call: str, name: str) -> bool:
    """Make the call; return whether it was refused for the form of its id."""
    try:
        CALLS[call](daemon.stub(), name)
    except grpc.RpcError as exc:
        return exc.code() in REFUSALS
    return False


def _try_all(daemon: Daemon, names: list[str]) -> Counter[str]:
    outcomes: Counter[str] = Counter()
    calls, ways = list(CALLS), list(HTTP)
    for number, name in enumerate(names):
        is_good = GOOD.match(name) is not None
        call = calls[number % len(calls)]
        assert _refused_over_grpc(daemon, call, name) is not is_good, (call, name)
        way = ways[number % len(ways)]
        status = HTTP[way](daemon, name)
        assert status < 500 or is_good, (way, name)
        if way in ("body", "quoted") and not is_good:
            assert status in (400, 404, 405), (way, name)
        outcomes["good" if is_good else "refused"] += 1
    return outcomes


def _check_nothing_outside_is_touched(new_daemon: NewDaemon, tmp_path: Path, count: int) -> None:
    outside = tmp_path / "outside"
    (outside / "directory").mkdir(parents=True)
    (outside / "file").write_bytes(b"somebody else's")
    daemon: Daemon = new_daemon()
    before = snapshot(outside)
    around = {path.name for path in daemon.l2_root.parent.iterdir()}
    outcomes = _try_all(daemon, hostile_ids(count))
    assert min(outcomes["good"], outcomes["refused"]) > count // 100
    assert outcomes.total() == count
    print(dict(outcomes))  # noqa: T201 - the figures of the run
    assert snapshot(outside) == before
    assert {path.name for path in daemon.l2_root.parent.iterdir()} == around
    ours = {".tmp", ".quarantine", ".catalog", "garment", "text"}
    ours |= {"human_upper_body", "human_lower_body", "human_dresses"}
    assert {path.name for path in daemon.l2_root.iterdir()} <= ours
    for path in daemon.l2_root.glob("*/*"):
        assert GOOD.match(path.name), path
    assert daemon.stub().Stats(pb.StatsRequest(), timeout=20).version


def test_no_id_touches_what_is_outside(new_daemon: NewDaemon, tmp_path: Path) -> None:
    _check_nothing_outside_is_touched(new_daemon, tmp_path, QUICK_IDS)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_no_id_of_five_thousand_touches_what_is_outside(
    new_daemon: NewDaemon, tmp_path: Path
) -> None:
    _check_nothing_outside_is_touched(new_daemon, tmp_path, LONG_IDS)
