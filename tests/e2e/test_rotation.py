"""Promise 10: do certificates change under load without a lost call, and broken ones not at all?"""

from __future__ import annotations

import ssl
import threading
from pathlib import Path

import grpc

from cachesvc_proto.v1 import cache_pb2 as pb
from tests.support.daemons import Daemon, wait_until
from tests.support.secured import Credentials, bearer, secured_daemon

TIMEOUT_S = 10
ROTATIONS = 8
TOKEN = bearer("token-of-observer")


class Callers:
    """Threads that call without a pause: over one connection, and over a new one for each call."""

    def __init__(self, credentials: Credentials, address: str) -> None:
        self._credentials = credentials
        self._address = address
        self._over = threading.Event()
        self.answered = {"kept": 0, "new": 0}
        self.failed: list[grpc.StatusCode] = []
        self._threads = [
            threading.Thread(target=self._keep_one, daemon=True),
            threading.Thread(target=self._make_new, daemon=True),
        ]

    def __enter__(self) -> Callers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(TIMEOUT_S)

    def _keep_one(self) -> None:
        with self._credentials.stub(self._address) as stub:
            while not self._over.is_set():
                self._call(stub, "kept")

    def _make_new(self) -> None:
        while not self._over.is_set():
            with self._credentials.stub(self._address) as stub:
                self._call(stub, "new")

    def _call(self, stub: object, kind: str) -> None:
        try:
            stub.Stats(pb.StatsRequest(), timeout=TIMEOUT_S, metadata=TOKEN)  # type: ignore[attr-defined]
        except grpc.RpcError as exc:
            self.failed.append(exc.code())
        else:
            self.answered[kind] += 1


def served(address: str) -> bytes:
    """Return the certificate that the next handshake shows."""
    host, _, port = address.rpartition(":")
    return ssl.PEM_cert_to_DER_cert(
        ssl.get_server_certificate((host, int(port)), timeout=TIMEOUT_S)
    )


def failures(daemon: Daemon) -> float:
    return daemon.metrics()['cachesvc_reload_failures_total{what="grpc_tls"}']


def test_no_call_is_lost_while_certificates_change(tmp_path: Path) -> None:
    credentials = Credentials(tmp_path)
    credentials.know(tokens=[{"name": "o", "token": "token-of-observer", "roles": ["observer"]}])
    with (
        secured_daemon(tmp_path, credentials, demand_certificates=False) as (daemon, address),
        Callers(credentials, address) as callers,
    ):
        for rotation in range(ROTATIONS):
            renewed = credentials.renew_server()
            # The files are replaced one by one: a handshake in between still uses the old pair.
            assert served(address) == ssl.PEM_cert_to_DER_cert(renewed.pem.decode())
            wait_until(lambda reached=rotation: min(callers.answered.values()) > reached, TIMEOUT_S)
        log = daemon.log_text()
    assert callers.failed == []
    assert log.count('"reloaded"') >= ROTATIONS


def test_what_cannot_be_used_keeps_the_old_certificate(tmp_path: Path) -> None:
    credentials = Credentials(tmp_path)
    credentials.know(tokens=[{"name": "o", "token": "token-of-observer", "roles": ["observer"]}])
    with secured_daemon(tmp_path, credentials, demand_certificates=False) as (daemon, address):
        before, key = served(address), credentials.key_file.read_bytes()
        broken = {
            "the key of another certificate": lambda: credentials.key_file.write_bytes(
                credentials.authority.issue("x.example").key
            ),
            "no key": lambda: credentials.key_file.write_text("nonsense"),
            "a key for everybody": lambda: credentials.key_file.chmod(0o644),
            "nothing there": credentials.key_file.unlink,
        }
        for number, (what, do) in enumerate(broken.items(), start=1):
            if what == "a key for everybody":
                credentials.key_file.write_bytes(key)
            do()
            assert served(address) == before, what
            assert failures(daemon) == number, what
        renewed = credentials.renew_server()
        assert served(address) == ssl.PEM_cert_to_DER_cert(renewed.pem.decode())
