"""`cachesvc health`: does the daemon live, and is it ready for calls? For exec probes.

A probe starts a process every few seconds on a busy host, so this module makes one bare call and
reads the only field of the standard health answer without protobuf.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from cachesvc.cli.conventions import output
from cachesvc.cli.conventions.connection import START_IT
from cachesvc.cli.conventions.exits import ExitCode, fail
from cachesvc.cli.conventions.options import LEAST_TIMEOUT_S, Json, Target, seconds_at_least

if TYPE_CHECKING:
    import grpc

# A probe's own limit is often 1 s; its process has to end before that.
DEFAULT_HEALTH_TIMEOUT_S = 0.8
_CHECK = "/grpc.health.v1.Health/Check"
_SERVICE = b"cachesvc.v1.CacheService"
# HealthCheckRequest: field 1, `service`. HealthCheckResponse: field 1, `status`.
_REQUEST = bytes((1 << 3 | 2, len(_SERVICE))) + _SERVICE
_SERVING = bytes((1 << 3, 1))


def health(
    ready: Annotated[
        bool, typer.Option("--ready", help="Also ask whether the daemon is ready, as /readyz does.")
    ] = False,
    as_json: Json = False,
    target: Target = None,
    timeout_s: Annotated[
        float,
        typer.Option(
            "--timeout",
            parser=seconds_at_least(LEAST_TIMEOUT_S),
            metavar="TIME",
            help="Seconds for the answer.",
        ),
    ] = DEFAULT_HEALTH_TIMEOUT_S,
) -> None:
    """Say whether the daemon answers; with --ready, also whether it is ready.

    Exit code 0: yes; 1: it answers, but is not ready; 4: no daemon answers in time.
    """
    from cachesvc_client import CacheServiceError, InvalidSettings

    try:
        status = _ask(target, timeout_s)
    except InvalidSettings as exc:
        fail(exc.message, ExitCode.USAGE)
    except CacheServiceError as exc:
        status, why = "away", exc.message
    else:
        why = f"no daemon answered within {timeout_s:g} s; {START_IT}"
    if as_json:
        output.print_json({"alive": status != "away", "ready": status == "serving"})
    if status == "away":
        fail(why, ExitCode.AWAY)
    if ready and status != "serving":
        fail(
            "the daemon answers, but is not ready: it is starting, shutting down, or has a problem "
            "that /readyz and its log name"
        )
    if not as_json:
        print(status)


def _ask(target: str | None, timeout_s: float) -> str:
    """Return `serving`, `not serving` or `away`. Raises CacheServiceError."""
    import os

    import grpc

    from cachesvc_client._door import Nobody
    from cachesvc_client._route import route_to
    from cachesvc_client._target import resolve
    from cachesvc_client._trust import trust_of

    address, trust = resolve(target, os.environ), trust_of(None, os.environ)
    route = route_to(address, trust, None, None, None, os.environ)
    try:
        door = route.open()
    except Nobody:
        return "away"
    with route.channel(door) as channel:
        check: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(_CHECK)
        try:
            answer = check(_REQUEST, timeout=timeout_s, metadata=route.metadata)
        except grpc.RpcError as exc:
            return _status_of(exc.code())
    return "serving" if answer == _SERVING else "not serving"


def _status_of(code: grpc.StatusCode) -> str:
    import grpc

    if code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
        return "away"
    # Any other status proves that a daemon answers: NOT_FOUND before it is ready.
    return "not serving"
