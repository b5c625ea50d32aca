"""Settings: one loader for a TOML file and the `CACHESVC_*` variables, which win over it.

All problems are reported at once. `settings.py` has the settings.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from cachesvc.config import together
from cachesvc.config.messages import problems
from cachesvc.config.settings import (
    GIB,
    MIB,
    GrpcSettings,
    HttpSettings,
    L1Settings,
    L2Settings,
    LimitSettings,
    OriginSettings,
    Settings,
)
from cachesvc.config.sources import as_written, name_as_written, names_of, read_toml
from cachesvc.config.values import ENV_PREFIX
from cachesvc.core.errors import ConfigError

__all__ = [
    "ENV_PREFIX",
    "GIB",
    "MIB",
    "GrpcSettings",
    "HttpSettings",
    "L1Settings",
    "L2Settings",
    "LimitSettings",
    "OriginSettings",
    "Settings",
    "load",
]


def load(config_file: Path | None = None) -> Settings:
    """Read the file and the variables, which win over it.

    Raises:
        ConfigError: names every setting that cannot be read, and why; if all can be read,
            every setting that cannot work beside the others.
    """
    in_file = read_toml(config_file, "--config") if config_file is not None else {}

    def name_of(path: Sequence[str]) -> str:
        return name_as_written(path, os.environ, in_file)

    def written(path: Sequence[str], value: Any) -> Any:
        return as_written(path, os.environ, in_file, value)

    try:
        settings = Settings(**in_file)
    except ValidationError as exc:
        found = problems(exc, name_of, list(names_of(Settings)), written)
        raise ConfigError("; ".join(found)) from exc
    if found := together.problems(settings):
        raise ConfigError("; ".join(found))
    return settings
