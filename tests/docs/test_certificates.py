"""Do strict verifiers accept certificates that are made with the documents' commands?

Python 3.13 verifies strictly by default (RFC 5280): a CA needs a critical keyUsage, for example.
"""

from __future__ import annotations

import http.client
import re
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest

from cachesvc_proto.v1 import cache_pb2 as pb
from tests.release.pythons import Python, find
from tests.support.certificates import HERE, Authority
from tests.support.daemons import ROOT, Daemon, stub_on
from tests.support.debian import why_missing
from tests.support.server_processes import ReservedPort

SERVER = "gpu1.example"  # the name in the documents' certificate
# What node's and Python's own defaults make of them: {port}, {folder}.
NODE = """
const fs = require('node:fs'), [port, folder] = process.argv.slice(1);
const pem = (name) => fs.readFileSync(`${folder}/${name}`);
const options = { port, host: '127.0.0.1', servername: 'gpu1.example', ca: pem('ca.pem'),
                  cert: pem('backend.pem'), key: pem('backend.key') };
const socket = require('node:tls').connect(options, () => {
  console.log(socket.authorized); socket.end();
});
"""
PYTHON = """
import socket, ssl, sys
port, folder = sys.argv[1:]
context = ssl.create_default_context(cafile=f"{folder}/ca.pem")
context.load_cert_chain(f"{folder}/backend.pem", f"{folder}/backend.key")
with socket.create_connection(("127.0.0.1", int(port)), 20) as plain:
    with context.wrap_socket(plain, server_hostname="gpu1.example"):
        print(bool(context.verify_flags & ssl.VERIFY_X509_STRICT))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files that the documents' commands make."""
    if (reason := why_missing("openssl")) is not None:
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("certificates")
    text = (ROOT / "docs/security.md").read_text()
    (commands,) = re.findall(r"^```sh\n(key=.*?)^```", text, re.MULTILINE | re.DOTALL)
    command = ["bash", "-euo", "pipefail", "-c", commands]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    (folder / "access.toml").write_text('[certificates]\n"backend.example" = ["backend"]\n')
    return folder


@pytest.fixture(scope="module")
def daemon(folder: Path) -> Iterator[Daemon]:
    port = ReservedPort()
    tls = {"CERT_FILE": "server.pem", "KEY_FILE": "server.key", "CLIENT_CA_FILE": "ca.pem"}
    daemon = Daemon(
        folder,
        {
            "GRPC__LISTEN": f"0.0.0.0:{port.number}",
            "ACCESS__FILE": str(folder / "access.toml"),
            **{
                f"{door}__TLS__{name}": str(folder / file)
                for name, file in tls.items()
                for door in ("GRPC", "HTTP")
            },
        },
        is_forked=True,
    )
    daemon.tls = ssl._create_unverified_context()
    try:
        daemon.start()
        yield daemon
    finally:
        daemon.close()
        port.release()


def strict(ca: str) -> ssl.SSLContext:
    context = ssl.create_default_context(cadata=ca)
    context.verify_flags |= ssl.VERIFY_X509_STRICT | ssl.VERIFY_X509_PARTIAL_CHAIN
    return context


def test_a_strict_python_accepts_them_over_https(daemon: Daemon, folder: Path) -> None:
    context = strict((folder / "ca.pem").read_text())
    context.load_cert_chain(folder / "backend.pem", folder / "backend.key")
    with (
        socket.create_connection(("127.0.0.1", daemon.http_port), 20) as plain,
        context.wrap_socket(plain, server_hostname=SERVER) as encrypted,
    ):
        connection = http.client.HTTPConnection("localhost")
        connection.sock = encrypted
        connection.request("GET", "/readyz")
        assert connection.getresponse().status == 200


def test_the_backends_certificate_invalidates_over_grpc(daemon: Daemon, folder: Path) -> None:
    credentials = grpc.ssl_channel_credentials(
        *((folder / name).read_bytes() for name in ("ca.pem", "backend.key", "backend.pem"))
    )
    port = daemon.settings["GRPC__LISTEN"].rpartition(":")[2]
    options = (("grpc.ssl_target_name_override", SERVER),)
    with grpc.secure_channel(f"127.0.0.1:{port}", credentials, options) as channel:
        answer = stub_on(channel).Invalidate(pb.InvalidateRequest(user_id="user-7"), timeout=20)
    assert answer.invalidated_at.seconds > 0


def test_node_accepts_them(daemon: Daemon, folder: Path) -> None:
    if (reason := why_missing("node")) is not None:
        pytest.skip(reason)
    command = ["node", "-e", NODE, str(daemon.http_port), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout == "true\n", done.stderr


def test_python_3_13_accepts_them_by_its_own_defaults(daemon: Daemon, folder: Path) -> None:
    (python,) = find(["3.13"])
    if not isinstance(python, Python):
        pytest.skip(python)
    command = [str(python.path), "-I", "-c", PYTHON, str(daemon.http_port), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout == "True\n", done.stderr


def test_a_strict_verifier_accepts_the_tests_own_authority_too(tmp_path: Path) -> None:
    ours = Authority("ours")
    files = ours.issue(SERVER, sans=HERE).write(tmp_path, "server")
    context = strict(ours.pem.decode())
    with (
        tls_server(*files) as port,
        socket.create_connection(("127.0.0.1", port), 20) as plain,
        context.wrap_socket(plain, server_hostname=SERVER) as encrypted,
    ):
        assert encrypted.getpeercert()


@contextmanager
def tls_server(certificate: Path, key: Path) -> Iterator[int]:
    """Shake one hand."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def shake() -> None:
            with listener.accept()[0] as plain, context.wrap_socket(plain, server_side=True):
                pass

        thread = threading.Thread(target=shake)
        thread.start()
        yield listener.getsockname()[1]
        thread.join()
