"""Which settings cannot work beside each other, or can work on no host?

Each check yields a sentence that names the settings and their values. What depends on the host's
disks and memory is checked by the start and by `doctor`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from itertools import combinations
from pathlib import Path

from cachesvc.config import origin
from cachesvc.config.access import listener_problems
from cachesvc.config.messages import nearest, setting
from cachesvc.config.settings import Settings
from cachesvc.config.values import split_address
from cachesvc.core.errors import ConfigError
from cachesvc_format import control_page
from cachesvc_format.paths import problem_of_socket

# Addresses on which a listener takes its port from every other.
_WILDCARDS = frozenset({"", "0.0.0.0", "::"})  # noqa: S104 compared only
# What the daemon makes in the runtime directory.
_OURS_IN_RUNTIME = (control_page.NAME, control_page.L1_DIRECTORY, "admin.sock", "catalog")
_HOST_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?")


def problems(settings: Settings) -> list[str]:
    """Return a sentence for each problem of all parts."""
    return [text for check in _CHECKS for text in check(settings)]


def problems_of_places(settings: Settings) -> Iterator[str]:
    """Yield the pairs of directories that are the same or lie in each other.

    A lock, a clean-up or a sweep of one would reach the other.
    """
    for (one, path), (other, above) in combinations(_directories(settings).items(), 2):
        first, second = _real(path), _real(above)
        if first == second:
            yield f"{setting(one)} and {setting(other)} are the same directory, {path}"
        elif first.is_relative_to(second):
            yield _inside(one, path, other, above)
        elif second.is_relative_to(first):
            yield _inside(other, above, one, path)


def problems_of_sockets(settings: Settings) -> Iterator[str]:
    """Yield what makes the unix socket's path unusable."""
    given = settings.grpc.socket
    sockets = {"runtime_dir": settings.admin_socket_path}
    if given is None:
        sockets["runtime_dir"] = settings.socket_path  # the longer name
    else:
        sockets["grpc.socket"] = given
        for ours in _OURS_IN_RUNTIME:
            if _real(given).is_relative_to(_real(settings.runtime_dir / ours)):
                yield (
                    f"{setting('grpc.socket')} is {given}: the daemon uses {ours} in "
                    f"{setting('runtime_dir')} itself"
                )
    for name, path in sockets.items():
        if why := problem_of_socket(str(path)):
            yield f"{setting(name)}: {why}"


def problems_of_ports(settings: Settings) -> Iterator[str]:
    """Yield listeners that would take each other's port."""
    if not (settings.grpc.listen and settings.http.listen):
        return
    (host, port), (other, taken) = map(split_address, (settings.grpc.listen, settings.http.listen))
    if port == taken != 0 and (host == other or not _WILDCARDS.isdisjoint((host, other))):
        yield (
            f"{setting('grpc.listen')} is {settings.grpc.listen} and {setting('http.listen')} is "
            f"{settings.http.listen}: each listener needs its own port"
        )


def _real(path: Path) -> Path:
    return Path(os.path.realpath(path))


def _directories(settings: Settings) -> dict[str, Path]:
    named = {
        "runtime_dir": settings.runtime_dir,
        "state_dir": settings.state_dir,
        "l2.root": settings.l2.root,
    }
    if settings.origin.kind == "directory" and settings.origin.path is not None:
        named["origin.path"] = settings.origin.path
    return named


def _inside(inner: str, path: Path, outer: str, above: Path) -> str:
    return (
        f"{setting(inner)} is {path}, which lies inside {setting(outer)}, {above}: "
        "set directories beside each other, because what empties one would reach the other"
    )


def _of_access(settings: Settings) -> Iterator[str]:
    """Yield listeners that strangers could reach unguarded, and grants that cannot be read."""
    access = settings.access
    yield from listener_problems("grpc", settings.grpc.listen, settings.grpc.tls, access)
    yield from listener_problems("http", settings.http.listen, settings.http.tls, access)
    if access.certificates and not (
        settings.grpc.tls.client_ca_file or settings.http.tls.client_ca_file
    ):
        yield "access.certificates needs a client_ca_file: no listener asks for certificates"
    yield from _refusal(access.load_grants)


def _of_hosts(settings: Settings) -> Iterator[str]:
    for host in settings.http.allowed_hosts:
        if not _HOST_NAME.fullmatch(host):
            yield (
                f"{setting('http.allowed_hosts')} has {host!r}: a name in a Host header has no "
                "scheme, port, path or *, such as cache.example"
            )


def _of_kinds(settings: Settings) -> Iterator[str]:
    built_in = ("human", "garment", "text")
    for text in _refusal(settings.build_kinds):
        unknown = [name for name in settings.kinds if f"kinds.{name}:" in text]
        near = nearest(unknown[0], built_in) if unknown and unknown[0] not in built_in else None
        yield f"{text}; the nearest built-in kind is {near}" if near else text


def _of_l2(settings: Settings) -> Iterator[str]:
    low, high = settings.l2.low_watermark, settings.l2.high_watermark
    if low > high:
        yield (
            f"{setting('l2.low_watermark')} is {low:g} and {setting('l2.high_watermark')} is "
            f"{high:g}: the low one has to be at most the high one"
        )
    else:
        yield from _refusal(settings.l2.watermarks)


def _refusal(check: Callable[[], object]) -> Iterator[str]:
    try:
        check()
    except ConfigError as exc:
        yield str(exc)


_CHECKS: tuple[Callable[[Settings], Iterator[str]], ...] = (
    _of_kinds,
    _of_l2,
    lambda settings: origin.problems(settings.origin),
    problems_of_places,
    problems_of_sockets,
    problems_of_ports,
    _of_hosts,
    _of_access,
)
