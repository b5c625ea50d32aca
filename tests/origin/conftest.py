"""Both origins, built in the same way for the contract tests."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from cachesvc.core.errors import OriginUnavailable
from cachesvc.origin.directory import DirectoryOrigin
from cachesvc.origin.s3 import S3Origin
from cachesvc.origin.s3_client import S3Settings
from tests.support.s3.servers import S3Server

AnyOrigin = DirectoryOrigin | S3Origin
OriginFactory = Callable[..., AnyOrigin]


def s3_origin(server: S3Server, bucket: str, **limits: Any) -> S3Origin:
    return S3Origin(
        S3Settings(
            bucket=bucket,
            region=server.region,
            endpoint_url=server.endpoint_url,
            addressing_style="path",
            **limits,
        )
    )


async def open_client(origin: S3Origin) -> None:
    """Let the client open, whatever the call's deadline: the opening goes on after it."""
    for _ in range(10):
        with contextlib.suppress(OriginUnavailable):
            await origin.start()
            break


def use_environment(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]) -> None:
    """Replace all AWS variables of the environment by `variables`."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def store(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> S3Server:
    """The real S3 server, with its credentials in the environment."""
    use_environment(monkeypatch, s3_server.credentials())
    return s3_server


@pytest.fixture(params=["directory", pytest.param("s3", marks=pytest.mark.s3)])
def new_origin(request: pytest.FixtureRequest, tmp_path: Path) -> OriginFactory:
    """Make an origin over the same empty store, with limits of the test's choice."""
    if request.param == "directory":
        return partial(DirectoryOrigin, tmp_path)
    store: S3Server = request.getfixturevalue("store")
    return partial(s3_origin, store, store.new_bucket())


@pytest.fixture
async def origin(new_origin: OriginFactory) -> AsyncIterator[AnyOrigin]:
    origin = new_origin()
    await origin.start()
    yield origin
    await origin.close()
