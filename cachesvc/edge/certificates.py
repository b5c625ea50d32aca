"""Reports when the listeners' certificates expire.

A handshake that still works does not show the date. So the dates of the files in force are a
metric, for alerts, and are logged: at the start, after a reload, when their outlook changes, and
once a day while a person has to act. This module also
checks the files each minute; otherwise a listener without calls would go on reporting the dates of
a certificate that was replaced long ago.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, TypeVar

import structlog

from cachesvc.config.access import TlsSettings
from cachesvc.core import certificates
from cachesvc.core.certificates import Outlook, Validity
from cachesvc.core.clock import NS_PER_S, Clock, Now
from cachesvc.edge import tls_files
from cachesvc.edge.reloading import Reloaded
from cachesvc.edge.tls_files import Dates, TlsFiles
from cachesvc.metrics import GaugeReading

log = structlog.get_logger()
T = TypeVar("T")
LOOK_EVERY_S = 60.0
SAY_EVERY_NS = certificates.DAY_S * NS_PER_S
_LABELS = {"cert_file": "", "client_ca_file": "_client_ca"}
_DATES = {
    "tls_certificate_start_timestamp_seconds": "From when a listener's certificate holds.",
    "tls_certificate_expiry_timestamp_seconds": "Until when a listener's certificate holds.",
}


class Certificates:
    """The dates of every TCP listener's files in force. `reloaded` is safe from any thread."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        # One for each listener with TLS.
        self.files: list[Reloaded[Any]] = []
        # The dates in force, by listener.
        self._held: dict[str, Dates] = {}
        self._said: dict[str, tuple[Validity, Outlook, int]] = {}

    def reloaded(
        self,
        listener: str,
        settings: TlsSettings,
        make: Callable[[TlsFiles, ssl.SSLContext], T],
        on_failure: Callable[[], None],
    ) -> Reloaded[T]:
        """Return what `make` makes of the files, made again when they have changed.

        Raises:
            ConfigError: the files cannot be used.
        """

        def load() -> T:
            files, context = tls_files.load(listener, settings)
            value = make(files, context)
            self._held[listener] = Dates.of(files)
            return value

        made = Reloaded(f"{listener}.tls", tls_files.paths_of(settings), load, on_failure)
        self.files.append(made)
        return made

    def gauges(self) -> list[GaugeReading]:
        """Return both dates of each file in force, by listener."""
        held = self._dates(self._clock.read())
        values = (
            {label: dates.starts_s for label, dates in held.items()},
            {label: dates.ends_s for label, dates in held.items()},
        )
        return [
            (name, text, "certificate", of_each)
            for (name, text), of_each in zip(_DATES.items(), values, strict=True)
        ]

    def outlooks(self) -> dict[str, Outlook]:
        """Return the outlook of each file in force, by the metric's label."""
        now = self._clock.read()
        wall_s = now.wall_ns / NS_PER_S
        return {label: dates.outlook(wall_s) for label, dates in self._dates(now).items()}

    async def run(self) -> None:
        """Check and log until cancelled. Does nothing if TLS is off."""
        while self.files:
            self.tell(self._clock.read())
            await asyncio.sleep(LOOK_EVERY_S)
            # `stat` may block.
            await asyncio.to_thread(self.look)

    def look(self) -> None:
        """Read files that have changed. Blocks."""
        for files in self.files:
            files.current()

    def tell(self, now: Now) -> None:
        """Log each file's dates if they or their outlook changed; once a day unless all is well."""
        for label, dates in self._dates(now).items():
            outlook = dates.outlook(now.wall_ns / NS_PER_S)
            said = self._said.get(label)
            is_news = said is None or said[:2] != (dates, outlook)
            is_due = said is not None and now.steady_ns - said[2] >= SAY_EVERY_NS
            if is_news or (is_due and outlook is not Outlook.HOLDS):
                self._said[label] = dates, outlook, now.steady_ns
                _say(label, dates, outlook)

    def _dates(self, now: Now) -> dict[str, Validity]:
        """Return the validity of each file in force, by the metric's label."""
        return {
            listener + _LABELS[name]: dates
            for listener, all_dates in tuple(self._held.items())
            for name, dates in all_dates.at(now.wall_ns / NS_PER_S)
        }


def _say(label: str, dates: Validity, outlook: Outlook) -> None:
    moments = {"starts": _text(dates.starts_s), "ends": _text(dates.ends_s)}
    if outlook is Outlook.HOLDS:
        log.info("tls_certificate", certificate=label, **moments)
    elif outlook is Outlook.ENDS_SOON:
        log.warning("tls_certificate_ends_soon", certificate=label, **moments)
    else:
        # No caller over TLS gets in; the unix sockets still serve.
        log.error(f"tls_certificate_{outlook.value}", certificate=label, **moments)


def _text(moment_s: float) -> str:
    return datetime.fromtimestamp(moment_s, UTC).isoformat()
