"""Which S3 server do the tests use, and how do they get buckets of their own?

`CACHESVC_TEST_S3` chooses: `ceph`, `moto`, or `auto` (Ceph if it is installed or root can install
it, otherwise moto). Each pytest-xdist worker has its own server.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config

from tests.support import aws_environment
from tests.support.s3 import ceph
from tests.support.s3.ceph import CephGateway
from tests.support.s3.moto import MotoServer

_CHOICE = "CACHESVC_TEST_S3"


class S3Server:
    """A running S3-compatible server. `chosen_because` says why it was chosen."""

    def __init__(self, server: CephGateway | MotoServer, chosen_because: str) -> None:
        self._server = server
        self._buckets: list[str] = []
        self.kind = server.kind
        self.chosen_because = chosen_because
        self.endpoint_url = server.endpoint_url
        self.access_key = server.access_key
        self.secret_key = server.secret_key
        self.region = server.region

    def new_bucket(self) -> str:
        """Make an empty bucket that no other test has."""
        bucket = f"test-{uuid.uuid4().hex}"
        self._make(bucket)
        self._buckets.append(bucket)
        return bucket

    def client(self) -> Any:
        """Return a plain boto3 client, to prepare what a test needs. Its calls block."""
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint_url,
            region_name=self.region,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            config=Config(s3={"addressing_style": "path"}),
        )

    def stop_serving(self) -> None:
        """Kill the server: connections are reset, then refused."""
        self._server.stop_serving()

    def start_serving(self) -> None:
        """Serve again on the same address. Ceph still has its objects; moto only the buckets."""
        self._server.start_serving()
        if self.kind == "moto":
            for bucket in self._buckets:
                self._make(bucket)

    def credentials(self) -> dict[str, str]:
        """Return the environment that makes AWS's credential chain find this server's key."""
        return aws_environment.with_key(self.access_key, self.secret_key)

    def _make(self, bucket: str) -> None:
        self.client().create_bucket(Bucket=bucket)


@contextmanager
def running_s3_server() -> Iterator[S3Server]:
    """Start the server that `CACHESVC_TEST_S3` chooses; stop it and delete its files afterwards."""
    # A short path, because Ceph makes a unix socket there (at most 107 bytes).
    folder = Path(tempfile.mkdtemp(prefix="s3-"))
    server, because = _chosen(folder)
    try:
        server.start()
        yield S3Server(server, because)
    finally:
        server.close()
        shutil.rmtree(folder)


def _chosen(folder: Path) -> tuple[CephGateway | MotoServer, str]:
    choice = os.environ.get(_CHOICE, "auto")
    if choice not in ("auto", "ceph", "moto"):
        raise RuntimeError(f"{_CHOICE} must be ceph, moto or auto, not {choice!r}")
    if choice == "moto":
        return MotoServer(folder), f"{_CHOICE}=moto"
    problem = ceph.why_not_available()
    if problem is None:
        return CephGateway(folder), f"{_CHOICE}={choice} and Ceph is installed"
    if choice == "ceph":
        raise RuntimeError(f"{_CHOICE}=ceph, but {problem}")
    return MotoServer(folder), f"{_CHOICE}=auto, but {problem}"


@pytest.fixture(scope="session")
def s3_server(request: pytest.FixtureRequest) -> Iterator[S3Server]:
    """One server for the whole session, started by the first test that asks for it."""
    with running_s3_server() as server:
        # None in a pytest-xdist worker, which has no terminal.
        reporter = request.config.pluginmanager.getplugin("terminalreporter")
        if reporter is not None:
            reporter.write_line(f"\nS3 server: {server.kind}, because {server.chosen_because}")
        yield server
