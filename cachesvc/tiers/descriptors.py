"""How many of the process's descriptors may L1's files have?

What is kept back is for connections, HTTP, L2's files and the origin: they come and go, and
a process that has none left answers nobody and cannot even say so.
"""

from __future__ import annotations

import resource

from cachesvc.core.errors import ConfigError

# Of the limit, L1 leaves a quarter to the rest, and never less than this: a daemon at rest
# has 40, an S3 client up to 48 connections, each caller one.
RESERVE_SHARE = 4
LEAST_RESERVE = 128
# Below it L1 would be a toy.
LEAST_FOR_L1 = 64


def files_of_l1(limit: int | None = None) -> int:
    """Return how many files L1 may have open; `limit` None = as the process is limited now.

    Raises:
        ConfigError: the limit is too low.
    """
    if limit is None:
        limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    left = limit - max(LEAST_RESERVE, limit // RESERVE_SHARE)
    if left < LEAST_FOR_L1:
        raise ConfigError(
            f"the process may have {limit} files open, which is less than "
            f"{LEAST_RESERVE + LEAST_FOR_L1}: raise the hard limit (ulimit -Hn; systemd: "
            "LimitNOFILE=; Docker: --ulimit nofile=)"
        )
    return left
