"""One person tries ten outfits: what comes from where, and how long does it take?

Starts the real daemon beside an origin in a folder, which answers each read 100 ms
late. Every answer's photo is compared with the origin's, byte for byte; a stale photo
ends the demo with exit code 1. All times are measured in the run that prints them.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Iterable

import numpy as np
import report
import sample_data
from daemon_process import ADDED_LATENCY_MS, DaemonFailed, DaemonProcess
from report import Request
from rich.console import Console

from cachesvc_client import CacheClient, CacheServiceError

COLD_TRYONS = 3
_POLL_S = 0.02
_COMMITTED_WITHIN_S = 10.0


class StalePhoto(Exception):
    """An answer held another photo than the origin does."""


class Demo:
    """The acts of the demo, on one daemon."""

    def __init__(self, daemon: DaemonProcess, console: Console) -> None:
        self._daemon = daemon
        self._console = console
        self._client = CacheClient(str(daemon.socket))
        self._photo = sample_data.human_image(daemon.origin)

    def run(self) -> None:
        """Play all acts. Raises StalePhoto, CacheServiceError, DaemonFailed."""
        with self._client:
            cold = self._try_on_cold()
            self._client.invalidate(everything=True)
            first = self._act("1. Ten outfits, nothing cached yet")
            again = self._act("2. The same ten outfits again")
            self._change_photo()
            self._crash()
            report.print_sum(self._console, cold, first, again)

    def _try_on_cold(self) -> list[Request]:
        requests = []
        for outfit in sample_data.GARMENTS[:COLD_TRYONS]:
            self._client.invalidate(everything=True)
            requests.append(self._try_on(outfit))
        title = f"0. Without a cache: all is invalidated before each, {ADDED_LATENCY_MS} ms a read"
        report.print_requests(self._console, title, requests)
        return requests

    def _act(self, title: str, outfits: Iterable[str] = sample_data.GARMENTS) -> list[Request]:
        requests = [self._try_on(outfit) for outfit in outfits]
        report.print_requests(self._console, title, requests)
        return requests

    def _try_on(self, outfit: str) -> Request:
        begun = time.perf_counter()
        tryon = self._client.get_tryon(sample_data.USER, outfit)
        elapsed_ms = (time.perf_counter() - begun) * 1e3
        if not np.array_equal(tryon.human.numpy()["human_img"], self._photo):
            raise StalePhoto(f"{outfit}: the person's photo is not the one at the origin")
        human, garment, text = (
            part.info.tier.value for part in (tryon.human, tryon.garment, tryon.text)
        )
        return Request(outfit, human, garment, text, elapsed_ms)

    def _change_photo(self) -> None:
        """Upload another photo and invalidate, as the backend does after the last object."""
        earlier = self._photo
        sample_data.write_person(self._daemon.origin, photo=2)
        self._photo = sample_data.human_image(self._daemon.origin)
        assert not np.array_equal(earlier, self._photo)
        begun = time.perf_counter()
        removed = self._client.invalidate(user_id=sample_data.USER).removed_count
        elapsed_ms = (time.perf_counter() - begun) * 1e3
        self._act("3. The person uploads a new photo, the backend invalidates", ("outfit-01",))
        self._console.print(
            f"Invalidate took {elapsed_ms:.1f} ms; entries that were cached: {removed};"
            " the answer above has the new photo.\n"
        )

    def _crash(self) -> None:
        """Kill the daemon once L2 has what was filled, and start it again."""
        give_up = time.monotonic() + _COMMITTED_WITHIN_S
        while self._client.stats().flights and time.monotonic() < give_up:
            time.sleep(_POLL_S)
        self._daemon.kill()
        begun = time.perf_counter()
        self._daemon.start()
        elapsed_s = time.perf_counter() - begun
        self._act("4. kill -9, a new daemon, the same ten outfits")
        self._console.print(
            f"From its start to its first answer the daemon took {elapsed_s:.1f} s.\n"
        )


def main() -> int:
    """Run the demo; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--keep", action="store_true", help="keep the daemon running until Ctrl-C")
    keep = parser.parse_args().keep
    # SIGTERM acts like Ctrl-C: the daemon ends and its folders are deleted.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    console = report.make_console()
    try:
        with DaemonProcess() as daemon:
            console.print("Writing sample data: 1 person, 10 garments with texts ...\n")
            sample_data.write_origin(daemon.origin)
            daemon.start()
            Demo(daemon, console).run()
            if keep:
                _keep(daemon, console)
    except (StalePhoto, CacheServiceError, DaemonFailed) as exc:
        print(f"demo: {exc}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 0 if keep else 130
    return 0


def _keep(daemon: DaemonProcess, console: Console) -> None:
    user, target = sample_data.USER, f"--target {daemon.socket}"
    command = f"{sys.executable} -m cachesvc"
    console.print("\nThe daemon stays until Ctrl-C. Talk to it from another terminal:\n")
    for line in (
        f"{command} stats {target}",
        f"{command} get tryon {user} outfit-01 {target}",
        f"{command} inspect human_upper_body {user} {target}",
        f"{command} invalidate --user {user} {target}",
    ):
        console.print(f"  {line}", soft_wrap=True)
    daemon.wait()


if __name__ == "__main__":
    sys.exit(main())
