"""What kinds of values do settings have, and how are they written?

Every type here turns a text of a variable or the file into its value, and refuses with a sentence
of ours what can never be such a value. The words for a value out of its limits are in
`messages.py`.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from cachesvc.core import units
from cachesvc_format import paths

ENV_PREFIX = "CACHESVC_"
# A Put's `ttl` has the same limit: an expiry time in nanoseconds has to fit 63 bits.
MAX_TIME_S = 366 * 86400
_HOUR_S = 3600.0
_MS_S = 0.001
# gRPC and the kernel take 32-bit counts.
MAX_COUNT = (1 << 31) - 1
# The kernel's limit of a file's length.
MAX_SIZE_BYTES = (1 << 63) - 1
_PORTS = 65536


class Section(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", hide_input_in_errors=True, allow_inf_nan=False
    )


def _size(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError(f"a size is bytes, or a number with a unit, such as {units.SIZE_EXAMPLES}")
    return units.size_bytes(value) if isinstance(value, str) else value


def _time(plain_unit_s: float) -> BeforeValidator:
    def convert(value: object) -> object:
        if isinstance(value, bool):
            raise ValueError(f"a time is a number with a unit, such as {units.TIME_EXAMPLES}")
        # One rounding: 24 hours are 24.0 again.
        if not isinstance(value, str):
            return value
        return units.time_s(value, plain_unit_s) / plain_unit_s

    return BeforeValidator(convert)


def _number(value: object) -> object:
    # Otherwise `true` would be 1.
    if isinstance(value, bool):
        raise ValueError("it has to be a number, not true or false")
    return value


def path_text(value: object) -> object:
    """Refuse what no path can be, and what only a shell would expand. Raises ValueError."""
    if not isinstance(value, str | Path):
        return value
    _refuse(paths.problem_of(str(value)))
    return value


def _whole_path(value: object) -> object:
    if isinstance(value, str | Path):
        _refuse(paths.problem_of_whole(str(value)))
    return value


def _refuse(problem: str) -> None:
    if problem:
        raise ValueError(problem)


def _empty_is_none(value: object) -> object:
    # A compose file leaves a variable out as "", which would be the path of this folder.
    return None if value == "" else value


Size = Annotated[int, BeforeValidator(_size), Field(le=MAX_SIZE_BYTES)]
Seconds = Annotated[float, _time(1.0), Field(le=MAX_TIME_S)]
Milliseconds = Annotated[float, _time(_MS_S), Field(le=MAX_TIME_S / _MS_S)]
Hours = Annotated[float, _time(_HOUR_S), Field(le=MAX_TIME_S / _HOUR_S)]
Count = Annotated[int, BeforeValidator(_number), Field(le=MAX_COUNT)]
Share = Annotated[float, BeforeValidator(_number)]
# Relative paths would lead elsewhere for the daemon, its workers and its commands.
Directory = Annotated[Path, BeforeValidator(_whole_path)]
MaybeDirectory = Annotated[
    Path | None, BeforeValidator(_whole_path), BeforeValidator(_empty_is_none)
]
MaybeFile = Annotated[Path | None, BeforeValidator(path_text), BeforeValidator(_empty_is_none)]


def split_address(value: str) -> tuple[str, int]:
    """Return host and port of `host:port` or `[v6]:port`. Raises ValueError."""
    host, separator, port = value.rpartition(":")
    if not separator or not re.fullmatch("[0-9]{1,5}", port) or int(port) >= _PORTS:
        raise ValueError(
            "an address is host:port with a port up to 65535, such as 127.0.0.1:8443 or [::1]:8443"
        )
    if host.startswith("[") == host.endswith("]"):
        host = host.removeprefix("[").removesuffix("]")
    if not re.fullmatch(r"[A-Za-z0-9._:%-]*", host) or max(map(len, host.split("."))) > 63:
        raise ValueError(
            f"{host!r} is no host: an address is host:port without a scheme, a path or a *; "
            "0.0.0.0 is every address of this host"
        )
    return host, int(port)
