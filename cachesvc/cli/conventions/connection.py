"""Connects commands to the daemon, and turns a failed call into a message and an exit code."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from cachesvc.cli.conventions.exits import ExitCode, fail

if TYPE_CHECKING:
    from cachesvc_client import CacheClient, CacheServiceError

# By reason: advice for this program's users that the daemon's message does not give.
_ADVICE = {
    "OWNER_REQUIRED": "--owner names the garment's owner",
    "NOT_DURABLE": "the old entry is no longer served; run the command again until it succeeds",
    "DRAINING": "run the command again once the daemon is back",
}
# A person or a script soon hears that no daemon answers. A worker's wait covers a restart.
WAIT_S = 3.0
START_IT = "`cachesvc serve` starts a daemon, --target names another socket"


@contextmanager
def connected(target: str | None, timeout_s: float) -> Iterator[CacheClient]:
    """Yield a client. An error of the client or of a call in the `with` ends the command."""
    from cachesvc_client import CacheClient, CacheServiceError, InvalidSettings

    try:
        made = CacheClient(target, timeout_s=timeout_s, wait_s=WAIT_S)
    except InvalidSettings as exc:
        fail(exc.message, ExitCode.USAGE)
    with made as client:
        try:
            yield client
        except CacheServiceError as exc:
            fail(*_verdict(exc))


def _verdict(error: CacheServiceError) -> tuple[str, ExitCode]:
    """Return the line to print and the exit code."""
    from cachesvc_client import (
        CacheUnavailable,
        CacheUnreachable,
        DeadlineExceeded,
        InvalidRequest,
        NotCached,
        OriginDenied,
        OriginUnavailable,
    )

    advice = _ADVICE.get(error.reason, "")
    code = ExitCode.FAILED
    if isinstance(error, NotCached):
        code = ExitCode.NOT_FOUND
        if error.parts:
            advice = f"missing: {', '.join(error.missing)}"
    elif isinstance(error, CacheUnavailable):
        code = ExitCode.AWAY
        # The message of CacheUnreachable itself says what to do.
        advice = advice or START_IT * (not isinstance(error, CacheUnreachable))
    elif isinstance(error, DeadlineExceeded):
        code = ExitCode.AWAY
        advice = "--timeout sets a longer time"
    elif isinstance(error, InvalidRequest):
        code = ExitCode.USAGE
    elif isinstance(error, OriginDenied | OriginUnavailable):
        advice = "`cachesvc doctor` asks the origin what is wrong"
    if error.object_keys:
        advice = f"{advice}; " * bool(advice) + f"objects: {', '.join(error.object_keys)}"
    return (f"{error}; {advice}" if advice else str(error)), code
