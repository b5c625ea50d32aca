"""How does a test run a daemon with a TCP port beyond loopback, and call it as a principal?"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc

from cachesvc.core.credentials import token_digest
from cachesvc_proto.v1 import cache_pb2_grpc
from tests.support.certificates import ADDRESSES, HERE, Authority, Certificate
from tests.support.daemons import Daemon, stub_on
from tests.support.server_processes import ReservedPort

# No packet leaves the host by this address, and the settings do not take it for loopback.
BEYOND = ADDRESSES[1]
ONE_CONNECTION_EACH = (("grpc.use_local_subchannel_pool", 1),)


class Credentials:
    """The files of one installation: its CA, its server's certificate, and the known callers."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = Authority("ours")
        self.ca_file = self.authority.write(folder)
        self.access_file = folder / "access.toml"
        self.renew_server()

    def renew_server(self) -> Certificate:
        """Replace the server's certificate, and return it."""
        fresh = self.authority.issue(sans=HERE)
        self.cert_file, self.key_file = fresh.write(self.folder, "server")
        return fresh

    def know(
        self,
        certificates: Mapping[str, list[str]] | None = None,
        tokens: list[dict[str, Any]] | None = None,
    ) -> None:
        """Write the grants; `tokens` are given in plain text."""
        lines = ["[certificates]"]
        lines += [
            f"{json.dumps(name)} = {json.dumps(roles)}"
            for name, roles in (certificates or {}).items()
        ]
        for token in tokens or []:
            lines += ["[[tokens]]", f'name = "{token["name"]}"']
            lines += [f'sha256 = "{token_digest(token["token"]).hex()}"']
            lines += [f"roles = {json.dumps(token['roles'])}"]
            lines += [f"expires = {token['expires']}"] if "expires" in token else []
        fresh = self.access_file.with_suffix(".new")
        fresh.write_text("\n".join(lines) + "\n")
        fresh.rename(self.access_file)

    def settings(self, address: str, *, demand_certificates: bool) -> dict[str, str]:
        ca = {"GRPC__TLS__CLIENT_CA_FILE": str(self.ca_file)} if demand_certificates else {}
        return {
            "GRPC__LISTEN": address,
            "GRPC__TLS__CERT_FILE": str(self.cert_file),
            "GRPC__TLS__KEY_FILE": str(self.key_file),
            "ACCESS__FILE": str(self.access_file),
            **ca,
        }

    @contextmanager
    def stub(
        self, address: str, certificate: Certificate | None = None
    ) -> Iterator[cache_pb2_grpc.CacheServiceStub]:
        """Yield a stub on a connection of its own."""
        with self.channel(address, certificate) as channel:
            yield stub_on(channel)

    def channel(self, address: str, certificate: Certificate | None = None) -> grpc.Channel:
        shown = (None, None) if certificate is None else (certificate.key, certificate.pem)
        credentials = grpc.ssl_channel_credentials(self.authority.pem, *shown)
        return grpc.secure_channel(address, credentials, options=ONE_CONNECTION_EACH)


@contextmanager
def secured_daemon(
    folder: Path,
    credentials: Credentials,
    *,
    host: str = BEYOND,
    demand_certificates: bool,
    arguments: Sequence[str] = (),
) -> Iterator[tuple[Daemon, str]]:
    """Run a daemon with a TLS port; yield it and the port's address."""
    port = ReservedPort(host)
    address = f"{host}:{port.number}"
    settings = credentials.settings(address, demand_certificates=demand_certificates)
    daemon = Daemon(folder, settings, arguments=arguments, is_forked=True)
    try:
        daemon.start()
        yield daemon, address
    finally:
        daemon.close()
        port.release()


def bearer(token: str) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {token}"),)
