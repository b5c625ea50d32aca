"""A bucket with a daemon before it, for the tests that need a real S3."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.conftest import NewDaemon
from tests.e2e.held_store import HeldStore, running_held_store
from tests.support import sample_objects
from tests.support.daemons import Daemon, s3_settings
from tests.support.s3.servers import S3Server
from tests.support.sample_objects import Sample


@dataclass(frozen=True)
class S3Setup:
    """A daemon that reads `bucket` through `store`, which may hold answers back."""

    server: S3Server
    bucket: str
    store: HeldStore
    daemon: Daemon

    def put(self, *samples: Sample) -> None:
        sample_objects.put_in_bucket(self.server, self.bucket, *samples)


@pytest.fixture
def on_s3(s3_server: S3Server, new_daemon: NewDaemon) -> Iterator[S3Setup]:
    bucket = s3_server.new_bucket()
    with running_held_store(s3_server.endpoint_url) as store:
        settings = s3_settings(s3_server, bucket, store.endpoint_url)
        daemon = new_daemon(environment=s3_server.credentials(), **settings)
        yield S3Setup(s3_server, bucket, store, daemon)
        daemon.kill()
