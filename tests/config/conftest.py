"""Settings of a test's own: none of the environment's."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from cachesvc import config

Load = Callable[..., config.Settings]


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(config.ENV_PREFIX):
            monkeypatch.delenv(name)


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Load:
    """Load a file's text and variables, named without their prefix; the bucket is given."""

    def with_values(toml: str = "", **variables: str) -> config.Settings:
        values = {"ORIGIN__BUCKET": "my-bucket", **variables}
        for name, value in values.items():
            monkeypatch.setenv(config.ENV_PREFIX + name, value)
        if not toml:
            return config.load(None)
        file = tmp_path / "cachesvc.toml"
        file.write_text(toml)
        return config.load(file)

    return with_values
