"""Decides how many of the process's descriptors L1's files may have.

The reserve is for connections, HTTP, L2's files and the origin. A process without a free
descriptor answers no call, not even with an error.
"""

from __future__ import annotations

import resource

from cachesvc.core.errors import ConfigError

# L1 leaves a quarter of the limit to the rest, and at least LEAST_RESERVE: an idle daemon has
# 40 descriptors, an S3 client up to 48 connections, each caller one.
RESERVE_SHARE = 4
LEAST_RESERVE = 128
# With fewer files L1 would be useless.
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
