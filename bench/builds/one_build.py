"""One build, measured in one way. That build's own Python runs this file as a script.

The build may be older than this file, so the script uses only stable interfaces: the command
`cachesvc serve`, its settings, and the public client. It prints "ready", then answers each line
"WARMUP CALLS" on its input with the calls' times in ns, as a JSON list. It ends with its input.
"""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from itertools import cycle
from pathlib import Path
from typing import Any, ClassVar

from cachesvc_client import CacheClient, LocalOptions

# So many that a client that keeps six of them has let each go before its next turn.
PEOPLE = tuple(f"bench-{number}" for number in range(24))
GARMENT = "outfit-01"
_KEPT = 6
_READY_WITHIN_S = 60.0
# Long enough for every fill to be in L2, so that no turn pays for another's writes.
_STORED_AFTER_S = 0.3


class Way:
    """A kind of Get: `before` is not timed, `call` is."""

    local = LocalOptions()
    settings: ClassVar[dict[str, str]] = {}
    people: tuple[str, ...] = PEOPLE[:1]

    def __init__(self, client: CacheClient) -> None:
        self.client = client
        self.turns = cycle(self.people)
        for person in self.people:
            self.fetch(person)

    def fetch(self, person: str) -> Any:
        return self.client.get_human(person).torch()

    def before(self) -> None:
        pass

    def call(self) -> Any:
        return self.fetch(next(self.turns))


class LocalHit(Way):
    """The same person again: a local hit, without a call."""


class FirstGet(Way):
    """A person that the client has not kept: a call, then mapping the file."""

    local = LocalOptions(max_entries=_KEPT)
    people = PEOPLE


class Inline(Way):
    """The answer contains the bytes."""

    local = LocalOptions(enabled=False)


class DiskHit(Way):
    """Two people take turns in an L1 for one, so each Get is served from L2."""

    settings: ClassVar = {"KINDS__HUMAN__MAX_ENTRIES": "1", "L1__REWARM": "false"}
    people = PEOPLE[:2]

    def __init__(self, client: CacheClient) -> None:
        super().__init__(client)
        deadline = time.monotonic() + _READY_WITHIN_S
        while set(self._tiers()) != {"disk"}:
            if time.monotonic() > deadline:
                raise RuntimeError("no Get was served from L2")
            time.sleep(_STORED_AFTER_S)

    def _tiers(self) -> list[str]:
        return [self.client.get_human(person).info.tier.value for person in self.people * 2]


class Cold(Way):
    """A whole try-on that is in no tier: 11 objects from S3."""

    def before(self) -> None:
        time.sleep(_STORED_AFTER_S)
        self.client.invalidate(everything=True)

    def fetch(self, person: str) -> Any:
        found = self.client.get_tryon(person, GARMENT)
        return [part.torch() for part in (found.human, found.garment, found.text)]


WAYS: dict[str, type[Way]] = {
    "local": LocalHit,
    "first": FirstGet,
    "inline": Inline,
    "disk": DiskHit,
    "cold": Cold,
}


def main() -> None:
    way, folder = WAYS[sys.argv[1]], Path(sys.argv[2])
    socket = folder / "run" / "cachesvc.sock"
    settings = {
        "RUNTIME_DIR": str(folder / "run"),
        "STATE_DIR": str(folder / "state"),
        "L2__ROOT": str(folder / "l2"),
        "L2__FREE_FLOOR_BYTES": "0",
        "L1__MAX_BYTES": str(512 << 20),
        "KINDS__HUMAN__MAX_ENTRIES": str(len(PEOPLE)),
        "HTTP__LISTEN": "",
        "LOG_LEVEL": "warning",
        **way.settings,
    }
    environment = os.environ | {f"CACHESVC_{name}": value for name, value in settings.items()}
    with (folder / "daemon.log").open("wb") as log:
        daemon = subprocess.Popen(
            (sys.executable, "-m", "cachesvc", "serve"), env=environment, stderr=log
        )
    try:
        _wait_for(socket, daemon)
        with CacheClient(str(socket), local=way.local) as client:
            _answer(way(client))
    finally:
        daemon.terminate()
        daemon.wait()


def _wait_for(socket: Path, daemon: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _READY_WITHIN_S
    while not socket.exists():
        if daemon.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError("the daemon did not start; its log is in its folder")
        time.sleep(0.02)


def _answer(way: Way) -> None:
    print("ready", flush=True)
    for line in sys.stdin:
        warmup, calls = map(int, line.split())
        for _ in range(warmup):
            _time_one(way.before, way.call)
        gc.collect()
        print(json.dumps([_time_one(way.before, way.call) for _ in range(calls)]), flush=True)


def _time_one(before: Callable[[], None], call: Callable[[], Any]) -> int:
    before()
    started = time.perf_counter_ns()
    result = call()
    took_ns = time.perf_counter_ns() - started
    del result
    return took_ns


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        main()
