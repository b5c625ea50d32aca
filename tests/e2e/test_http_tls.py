"""Promise 10 over HTTP: does TLS guard the port, and does a credential name its principal?

A proxy's header makes a caller a stranger here, whatever its address.
"""

from __future__ import annotations

import json
import re
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from tests.support.certificates import Authority, Certificate
from tests.support.daemons import Daemon
from tests.support.secured import Credentials

STRANGER = {"X-Forwarded-For": "10.9.9.9"}
ROLES = ("worker", "backend", "observer", "admin")
# Each role's status for: observe, find, invalidate, purge.
CELLS = {
    "worker": [200, 200, 403, 403],
    "backend": [200, 200, 200, 403],
    "observer": [200, 403, 403, 403],
    "admin": [200, 200, 200, 200],
}
REQUESTS = (
    ("GET", "/metrics"),
    ("GET", "/api/key/garment/c1"),
    ("DELETE", "/cache/human/u1"),
    ("DELETE", "/cache/all"),
)


@dataclass
class House:
    credentials: Credentials
    daemon: Daemon

    def context(self, certificate: Certificate | None = None) -> ssl.SSLContext:
        context = ssl.create_default_context(cadata=self.credentials.authority.pem.decode())
        if certificate is not None:
            context.load_cert_chain(*certificate.write(self.credentials.folder, "caller"))
        return context

    def ask(
        self, method: str, path: str, context: ssl.SSLContext | None = None, **headers: str
    ) -> tuple[int, str]:
        """Return the status and the error's reason."""
        url = f"https://127.0.0.1:{self.daemon.http_port}{path}"
        asked = urllib.request.Request(url, method=method, headers=STRANGER | headers)
        try:
            with urllib.request.urlopen(asked, timeout=10, context=context or self.context()) as it:
                return it.status, ""
        except urllib.error.HTTPError as exc:
            with exc:
                body: dict[str, Any] = json.loads(exc.read())
                return exc.code, body["error"]["reason"]


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    folder = tmp_path_factory.mktemp("https")
    credentials = Credentials(folder)
    credentials.know(
        {f"{role}.example": [role] for role in ROLES},
        [{"name": role, "token": f"token-of-{role}", "roles": [role]} for role in ROLES],
    )
    daemon = Daemon(
        folder,
        {
            "HTTP__TLS__CERT_FILE": str(credentials.cert_file),
            "HTTP__TLS__KEY_FILE": str(credentials.key_file),
            "HTTP__TLS__CLIENT_CA_FILE": str(credentials.ca_file),
            "ACCESS__FILE": str(credentials.access_file),
        },
    )
    house = House(credentials, daemon)
    daemon.tls = house.context()
    try:
        daemon.start()
        yield house
    finally:
        daemon.close()


@pytest.mark.parametrize("role", ROLES)
def test_a_token_has_the_cells_of_its_role(house: House, role: str) -> None:
    found = [
        house.ask(*request, Authorization=f"Bearer token-of-{role}")[0] for request in REQUESTS
    ]
    assert found == CELLS[role]


@pytest.mark.parametrize("role", ROLES)
def test_a_certificate_has_the_cells_of_its_role(house: House, role: str) -> None:
    context = house.context(house.credentials.authority.issue(f"{role}.example"))

    assert [house.ask(*request, context)[0] for request in REQUESTS] == CELLS[role]


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        ({}, "CREDENTIAL_REQUIRED"),
        ({"Authorization": "Bearer token-of-somebody"}, "CREDENTIAL_UNKNOWN"),
        ({"Authorization": "Basic YTpi"}, "CREDENTIAL_UNKNOWN"),
    ],
)
def test_a_stranger_gets_nothing_at_all(house: House, headers: dict[str, str], reason: str) -> None:
    for request in (*REQUESTS, ("GET", "/livez"), ("GET", "/health")):
        assert house.ask(*request, **headers) == (401, reason), request


def test_a_scrape_and_the_log_say_when_the_certificates_end(house: House) -> None:
    certificate = x509.load_pem_x509_certificate(house.credentials.cert_file.read_bytes())
    header = {"Authorization": "Bearer token-of-observer"}
    url = f"https://127.0.0.1:{house.daemon.http_port}/metrics"
    with urllib.request.urlopen(
        urllib.request.Request(url, headers=header), timeout=10, context=house.context()
    ) as answer:
        text = answer.read().decode()
    ends = dict(re.findall(r'^cachesvc_tls_.*expiry.*{certificate="(\w+)"} (\S+)$', text, re.M))
    assert float(ends["http"]) == certificate.not_valid_after_utc.timestamp()
    assert ends.keys() == {"http", "http_client_ca"}
    assert '"event": "tls_certificate"' in house.daemon.log_text()


@pytest.mark.parametrize("names", [(), ("other.example",)])
def test_a_certificate_whose_names_are_not_listed_is_401(
    house: House, names: tuple[str, ...]
) -> None:
    context = house.context(house.credentials.authority.issue(*names))

    assert house.ask("GET", "/metrics", context) == (401, "CREDENTIAL_UNKNOWN")


@pytest.mark.parametrize("what", ["foreign", "expired"])
def test_tls_refuses_a_certificate_that_is(house: House, what: str) -> None:
    certificate = {
        "foreign": lambda: Authority("theirs").issue("admin.example"),
        "expired": lambda: house.credentials.authority.issue("admin.example", expired=True),
    }[what]()
    with pytest.raises((urllib.error.URLError, OSError)):
        house.ask("GET", "/metrics", house.context(certificate))


def test_a_renewed_certificate_and_a_new_ca_count_for_the_next_connection(
    house: House,
) -> None:
    credentials = house.credentials
    old, names = house.context(), credentials.authority.issue("observer.example")
    renewed = credentials.renew_server()
    served = ssl.get_server_certificate(("127.0.0.1", house.daemon.http_port))
    assert ssl.PEM_cert_to_DER_cert(served) == ssl.PEM_cert_to_DER_cert(renewed.pem.decode())

    theirs = Authority("theirs")
    ours = credentials.ca_file.read_bytes()
    credentials.ca_file.write_bytes(theirs.pem)
    assert house.ask("GET", "/metrics", old, Authorization="Bearer token-of-observer")[0] == 200
    with pytest.raises((urllib.error.URLError, OSError)):
        house.ask("GET", "/metrics", house.context(names))
    assert house.ask("GET", "/metrics", house.context(theirs.issue("observer.example")))[0] == 200
    credentials.ca_file.write_bytes(ours)


def test_half_a_rotation_keeps_the_old_certificate(house: House, tmp_path: Path) -> None:
    credentials = house.credentials
    key = credentials.key_file.read_bytes()
    credentials.key_file.write_bytes(credentials.authority.issue("x.example").key)

    assert house.ask("GET", "/metrics", Authorization="Bearer token-of-observer")[0] == 200

    credentials.key_file.write_bytes(key)
    assert house.ask("GET", "/metrics", Authorization="Bearer token-of-observer")[0] == 200
    assert house.daemon.metrics()['cachesvc_reload_failures_total{what="http_tls"}'] == 1
