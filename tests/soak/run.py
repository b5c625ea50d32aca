"""A soak: workers come, make their calls and go, on the daemon and on the echo server alike."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from tests.soak.growth import Sample, Slope, slope_of
from tests.soak.servers import Server, excess, look_at_rest, running_pair
from tests.support.daemons import ROOT

# The calls of one worker, before the next takes its place.
CALLS_EACH = 2000
WORKERS_AT_ONCE = 2
SAMPLE_EVERY_S = 0.5
MAX_SLOPE_BYTES = 20.0
# An Invalidate may fence a Put or a fill. Warm-ups and Puts go on when their callers leave, so
# there may be too many. `local` counts the synchronous client's Gets.
EXPECTED_ENDS = frozenset(
    {
        "ok",
        "cancelled",
        "local",
        "PUT_FENCED",
        "PUT_OUTDATED",
        "FILL_FENCED",
        "TOO_MANY_PUTS",
        "TOO_MANY_WARMUPS",
    }
)
# Upkeep frees what ended calls have left within seconds.
COMES_BACK_WITHIN_S = 30.0
RESTS_WITHIN_S = 2.0
MAX_WARM_UPS = 6


@dataclass
class Track:
    """The samples of one server."""

    server: str
    samples: list[Sample] = field(default_factory=list)
    ended: dict[str, int] = field(default_factory=dict)
    calls: int = 0
    start: Sample | None = None
    end: Sample | None = None

    def left_over(self) -> dict[str, int]:
        assert self.start is not None
        assert self.end is not None
        return excess(self.end, self.start)


@dataclass(frozen=True)
class Soaked:
    """Both tracks, the daemon's first."""

    daemon: Track
    echo: Track
    seconds: float

    def slope(self) -> Slope:
        """Return how much more the daemon's private memory grew per call than the echo server's."""
        return slope_of(self.daemon.samples).above(slope_of(self.echo.samples))

    def complaints(self) -> list[str]:
        """Return what grew and should not have; an empty list if nothing did."""
        found = [
            f"{track.server} has {more} {what} more than at the start"
            for track in (self.daemon, self.echo)
            for what, more in track.left_over().items()
        ]
        above = self.slope()
        if above.bytes_per_call > MAX_SLOPE_BYTES:
            found.append(
                f"{above.bytes_per_call:.1f} B a call more than the echo server "
                f"(+- {above.margin:.1f}), {MAX_SLOPE_BYTES:g} allowed"
            )
        return found + [
            f"{count} calls ended as {way}"
            for way, count in self.daemon.ended.items()
            if way not in EXPECTED_ENDS
        ]


@dataclass(frozen=True)
class Shift:
    """What happens between two generations of workers."""

    workers: int = WORKERS_AT_ONCE
    calls_each: int = CALLS_EACH


USUAL = Shift()


def soak(folder: Path, is_over: Callable[[int, float], bool], shift: Shift = USUAL) -> Soaked:
    """Run rounds of workers until `is_over(calls of the daemon, seconds)`."""
    with running_pair(folder) as (daemon, echo, blob_file):
        tracks = {server.name: Track(server.name) for server in (daemon, echo)}
        pair = (daemon, echo)
        _warm_up(pair, tracks, blob_file, shift)
        started = time.monotonic()
        with _Sampler(pair, tracks):
            number = MAX_WARM_UPS
            while not is_over(tracks[daemon.name].calls, time.monotonic() - started):
                number += 1
                _round(pair, tracks, blob_file, number, shift)
        seconds = time.monotonic() - started
        for server in pair:
            track = tracks[server.name]
            track.end = look_at_rest(server, track.calls, track.start, COMES_BACK_WITHIN_S)
        return Soaked(tracks[daemon.name], tracks[echo.name], seconds)


def _warm_up(
    pair: tuple[Server, Server], tracks: dict[str, Track], blob_file: Path, shift: Shift
) -> None:
    """Run rounds until one leaves nothing more than the round before: the counting starts there.

    A pool starts its threads, and these their connections to the catalog, when many are needed at
    once. A leak grows with every round, and is seen at the end.
    """
    for number in range(MAX_WARM_UPS):
        _round(pair, tracks, blob_file, number, shift)
        is_steady = True
        for server in pair:
            track = tracks[server.name]
            before, track.start = track.start, look_at_rest(server, 0, track.start, RESTS_WITHIN_S)
            is_steady = is_steady and before is not None and not excess(track.start, before)
        if is_steady:
            break
    for track in tracks.values():
        track.calls, track.ended = 0, {}


def _round(
    pair: tuple[Server, Server],
    tracks: dict[str, Track],
    blob_file: Path,
    number: int,
    shift: Shift,
) -> None:
    """Let one shift work on each server, with the same seeds on both."""
    with ThreadPoolExecutor(2 * shift.workers) as pool:
        jobs = [
            pool.submit(
                _worker,
                server,
                tracks[server.name],
                blob_file,
                number * 1000 + at,
                shift.calls_each,
            )
            for server in pair
            for at in range(shift.workers)
        ]
        for job in jobs:
            job.result()


_COUNTING = threading.Lock()


def _worker(server: Server, track: Track, blob_file: Path, seed: int, calls: int) -> None:
    # As many more local hits, where there is a daemon.
    local_calls = calls if server.name == "cachesvc" else 0
    command = [sys.executable, "-m", "tests.soak.worker", server.target, str(blob_file)]
    command += [str(seed), str(calls), str(local_calls)]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'client'}"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, cwd=ROOT) as process:
        assert process.stdout is not None
        for line in process.stdout:
            said = json.loads(line)
            with _COUNTING:
                if isinstance(said, int):
                    track.calls += said
                else:
                    for way, count in said.items():
                        track.ended[way] = track.ended.get(way, 0) + count
    if process.returncode:
        raise RuntimeError(f"a worker of {server.name} died: {process.returncode}")


class _Sampler:
    """Samples both servers every SAMPLE_EVERY_S, in a thread, for the duration of a `with`."""

    def __init__(self, pair: tuple[Server, Server], tracks: dict[str, Track]) -> None:
        self._pair, self._tracks = pair, tracks
        self._ended = threading.Event()
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="sampler")

    def __enter__(self) -> None:
        self._looking = self._pool.submit(self._look)

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._looking.result()
        self._pool.shutdown()

    def _look(self) -> None:
        while not self._ended.wait(SAMPLE_EVERY_S):
            for server in self._pair:
                track = self._tracks[server.name]
                track.samples.append(server.look(track.calls))
