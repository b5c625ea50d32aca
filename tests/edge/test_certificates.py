"""Does the daemon log the end of the certificate in force, before and after it comes?"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from cachesvc.config.access import TlsSettings
from cachesvc.core.clock import NS_PER_S, Now
from cachesvc.core.errors import ConfigError
from cachesvc.edge.certificates import Certificates
from tests.support.certificates import Authority

DAY = timedelta(days=1)
NOW = datetime(2030, 6, 1, tzinfo=UTC)
CA = Authority("ca")


class Steered:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.at = NOW

    def read(self) -> Now:
        ns = int(self.at.timestamp()) * NS_PER_S
        return Now(ns, ns)


class Installation:
    """A certificate, its key, and the object that watches both."""

    def __init__(self, folder: Path, left: timedelta) -> None:
        self.folder, self.clock = folder, Steered()
        self.renew(left)
        self.tls = TlsSettings(cert_file=folder / "server.pem", key_file=folder / "server.key")
        self.certificates = Certificates(self.clock)  # type: ignore[arg-type]

    def renew(self, left: timedelta, lives: timedelta = 90 * DAY) -> None:
        ends = self.clock.at + left
        CA.issue("host", between=(ends - lives, ends)).write(self.folder, "server")

    def serve(self, listener: str = "grpc", **files: Path) -> None:
        settings = TlsSettings(**{**self.tls.model_dump(), **files})
        self.certificates.reloaded(listener, settings, lambda read, _: read, lambda: None)

    def told(self) -> list[tuple[str, str]]:
        """Return level and event of the lines that one check logs."""
        with capture_logs() as lines:
            self.certificates.tell(self.clock.read())
        return [(line["log_level"], line["event"]) for line in lines]

    def gauges(self) -> dict[str, dict[str, float]]:
        return {name: values for name, _, _, values in self.certificates.gauges()}


@pytest.fixture
def installed(tmp_path: Path, request: pytest.FixtureRequest) -> Installation:
    return Installation(tmp_path, getattr(request, "param", 30 * DAY))


def test_both_dates_are_a_metric_of_each_listeners_files(
    installed: Installation, tmp_path: Path
) -> None:
    installed.serve("grpc", client_ca_file=CA.write(tmp_path))
    installed.serve("http")
    gauges = installed.gauges()
    ends = gauges["tls_certificate_expiry_timestamp_seconds"]
    assert ends.keys() == {"grpc", "grpc_client_ca", "http"}
    assert ends["grpc"] == ends["http"] == (NOW + 30 * DAY).timestamp()
    starts = gauges["tls_certificate_start_timestamp_seconds"]
    assert starts["http"] == (NOW - 60 * DAY).timestamp()


def test_without_tls_nothing_is_shown_and_nothing_told(installed: Installation) -> None:
    assert list(installed.gauges().values()) == [{}, {}]
    assert installed.told() == []


@pytest.mark.parametrize(
    ("installed", "line"),
    [
        (30 * DAY, ("info", "tls_certificate")),
        (13 * DAY, ("warning", "tls_certificate_ends_soon")),
        (-1 * DAY, ("error", "tls_certificate_expired")),
        (91 * DAY, ("error", "tls_certificate_not_yet")),
    ],
    indirect=["installed"],
)
def test_the_log_says_at_the_start_how_long_it_holds(
    installed: Installation, line: tuple[str, str]
) -> None:
    installed.serve()
    assert installed.told() == [line]
    assert installed.told() == []


def test_it_is_told_when_it_becomes_worse_and_then_once_a_day(installed: Installation) -> None:
    installed.serve()
    said = []
    for _ in range(40):
        said += installed.told() + installed.told()
        installed.clock.at += DAY
    events = [event for _, event in said]
    # For 17 days all is well, which is said once.
    assert events.count("tls_certificate") == 1
    assert events.index("tls_certificate_ends_soon") == 1
    assert events.count("tls_certificate_ends_soon") == 14
    assert events.count("tls_certificate_expired") == 9


def test_a_renewal_is_seen_and_told_although_nobody_calls(installed: Installation) -> None:
    installed.serve()
    installed.clock.at += 20 * DAY
    assert installed.told() == [("warning", "tls_certificate_ends_soon")]
    installed.renew(90 * DAY)
    installed.certificates.look()
    assert installed.told() == [("info", "tls_certificate")]
    ends = installed.gauges()["tls_certificate_expiry_timestamp_seconds"]
    assert ends == {"grpc": (installed.clock.at + 90 * DAY).timestamp()}


def test_a_renewal_that_cannot_be_used_leaves_the_dates_of_what_is_in_force(
    installed: Installation,
) -> None:
    installed.serve()
    before = installed.gauges()
    (installed.folder / "server.pem").write_bytes(CA.issue("host").pem)  # it does not fit the key
    installed.certificates.look()
    assert installed.gauges() == before


def test_files_that_cannot_be_used_at_the_start_are_raised(installed: Installation) -> None:
    (installed.folder / "server.pem").write_text("junk")
    with pytest.raises(ConfigError, match=r"grpc\.tls\.cert_file"):
        installed.serve()


def test_the_chain_counts_by_what_ends_first(installed: Installation, tmp_path: Path) -> None:
    pem = tmp_path / "server.pem"
    ends: Any = NOW + 5 * DAY
    intermediate = CA.issue("between", between=(NOW - 85 * DAY, ends)).pem
    pem.write_bytes(pem.read_bytes() + intermediate)
    installed.serve()
    assert installed.told() == [("warning", "tls_certificate_ends_soon")]
