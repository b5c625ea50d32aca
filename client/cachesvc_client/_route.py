"""How a client reaches its daemon, and the errors if it cannot.

A target is a unix socket, whose user is checked (`_door.py`), or TCP, where TLS proves who answers
(`_probe.py`). The sync and the asyncio link both use it.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from concurrent.futures import Future

import grpc
import grpc.aio

from cachesvc_client import _probe
from cachesvc_client._credentials import Metadata, TlsFiles, files_for, shown
from cachesvc_client._door import Door, open_door
from cachesvc_client._options import CHANNEL_OPTIONS, KEEPALIVE_OPTIONS
from cachesvc_client._probe import Cause, Wire
from cachesvc_client._trust import Trust
from cachesvc_client.errors import CacheServiceError, CacheUnavailable, CacheUnreachable

Options = tuple[tuple[str, int], ...]


class Route:
    """The way to one target. It makes no connection itself."""

    def __init__(
        self,
        target: str,
        trust: Trust = Trust(),  # noqa: B008 - frozen
        credentials: grpc.ChannelCredentials | None = None,
        metadata: Metadata = None,
        tls: TlsFiles | None = None,
    ) -> None:
        self.target = target
        self.credentials = credentials
        # The caller's token, for every call.
        self.metadata = metadata
        self._trust = trust
        self._wire = Wire(target, credentials is not None, tls)

    @property
    def _path(self) -> str | None:
        path = self.target.removeprefix("unix:")
        return None if path == self.target else path

    @property
    def options(self) -> Options:
        return CHANNEL_OPTIONS if self._path is not None else CHANNEL_OPTIONS + KEEPALIVE_OPTIONS

    def open(self) -> Door:
        """Return a door for one channel. Raises Nobody, CacheUnreachable."""
        path = self._path
        return Door(self.target) if path is None else open_door(path, self._trust)

    def channel(self, door: Door) -> grpc.Channel:
        """Return a channel through `door`, which stays open as long as the channel lives."""
        if self.credentials is None:
            channel = grpc.insecure_channel(door.target, options=self.options)
        else:
            channel = grpc.secure_channel(door.target, self.credentials, options=self.options)
        weakref.finalize(channel, door.close).atexit = False
        return channel

    def aio_channel(self, door: Door) -> grpc.aio.Channel:
        """As `channel`."""
        if self.credentials is None:
            channel = grpc.aio.insecure_channel(door.target, options=self.options)
        else:
            channel = grpc.aio.secure_channel(door.target, self.credentials, options=self.options)
        weakref.finalize(channel, door.close).atexit = False
        return channel

    def another(self, door: Door) -> Door | None:
        """Return a new door if a restarted daemon has replaced the socket of `door`.

        Raises Nobody, CacheUnreachable.
        """
        if self._path is None:
            return None
        fresh = self.open()
        if fresh.identity == door.identity:
            fresh.close()
            return None
        return fresh

    def begin_probe(self) -> Future[Cause | None] | None:
        """Start to look for a failure's cause; None for a unix socket, which `another` checks."""
        return None if self._path is not None else _probe.begin(self._wire)

    def away(self, wait_s: float, reason: str, why: str) -> CacheUnavailable:
        """Return the error for a daemon that did not come back; `reason` is its last."""
        text = f"no daemon answered at {self.target} within {wait_s:g} s"
        return CacheUnavailable(f"{text}: {why}" if why else text, reason=reason)

    def explained(self, error: CacheServiceError, cause: Cause | None) -> CacheServiceError:
        """Return the error after the probe. Raises CacheUnreachable for a cause that stays."""
        if cause is None:
            return error
        if cause.reason:
            raise CacheUnreachable(cause.text, reason=cause.reason)
        return CacheUnavailable(cause.text)


def route_to(
    address: str,
    trust: Trust,
    credentials: grpc.ChannelCredentials | None,
    tls: TlsFiles | None,
    token: str | None,
    environment: Mapping[str, str],
) -> Route:
    """Return the route with the caller's credentials. Raises InvalidSettings."""
    shows = shown(address, credentials, tls, token, environment)
    return Route(address, trust, *shows, files_for(credentials, tls, environment))
