"""A client and a daemon in a network namespace of their own, whose connection goes dead.

`python dead_connection.py FOLDER sync|aio TIME_MS TIMEOUT_MS GIVES_UP_S`; prints JSON. A firewall
drops the connection's packets in both directions, so no FIN and no RST is ever seen, as when a host
loses its power; a new connection reaches a daemon at the same address.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import psutil

from cachesvc_client import AsyncCacheClient, CacheClient, CacheServiceError, _route
from tests.support.daemons import Daemon, running_daemon, wait_until
from tests.support.server_processes import ReservedPort

CALL_S = 2.0


def main() -> None:
    folder, kind, time_ms, timeout_ms, gives_up_s = sys.argv[1:]
    _route.KEEPALIVE_OPTIONS = _with(int(time_ms), int(timeout_ms))
    port = ReservedPort()
    settings = {"GRPC__LISTEN": f"127.0.0.1:{port.number}"}
    with running_daemon(Path(folder), settings) as daemon:
        sys.stdout.write(json.dumps(_asked(daemon, kind, port.number, float(gives_up_s))))


def _with(time_ms: int, timeout_ms: int) -> tuple[tuple[str, int], ...]:
    options = dict(_route.KEEPALIVE_OPTIONS)
    options["grpc.keepalive_time_ms"] = time_ms
    options["grpc.keepalive_timeout_ms"] = timeout_ms
    return tuple(options.items())


def _asked(daemon: Daemon, kind: str, port: int, gives_up_s: float) -> dict[str, object]:
    target = f"127.0.0.1:{port}"
    if kind == "sync":
        with CacheClient(target) as client:

            async def ask() -> None:
                client.stats(timeout_s=CALL_S)

            return asyncio.run(_watched(ask, port, gives_up_s))

    async def over_asyncio() -> dict[str, object]:
        async with AsyncCacheClient(target) as client:

            async def ask() -> None:
                await client.stats(timeout_s=CALL_S)

            return await _watched(ask, port, gives_up_s)

    return asyncio.run(over_asyncio())


async def _watched(
    ask: Callable[[], Awaitable[None]], port: int, gives_up_s: float
) -> dict[str, object]:
    """Return how long calls fail on a dead connection, and whether an idle dead one is replaced."""
    await ask()
    _cut(_local_port(port))
    begun, failures = time.monotonic(), []
    while True:
        try:
            await ask()
            break
        except CacheServiceError as error:
            failures.append(error.code.name)
            if time.monotonic() - begun > gives_up_s:
                return {"failures": failures, "served": False}
    took_s = time.monotonic() - begun
    # A second time, and no call is made meanwhile.
    idle = _local_port(port)
    _cut(idle)
    wait_until(lambda: idle not in _local_ports(port), gives_up_s)
    await ask()
    return {"failures": failures, "served": True, "took_s": round(took_s, 2)}


def _local_port(port: int) -> int:
    (local,) = _local_ports(port)
    return local


def _local_ports(port: int) -> set[int]:
    """Return the local ports of this process's connections to `port`."""
    connections = psutil.Process().net_connections("tcp")
    return {
        connection.laddr.port
        for connection in connections
        if connection.raddr and connection.raddr.port == port
    }


def _cut(local: int) -> None:
    rules = f"""
    table inet dead_{local} {{
        chain cut {{
            type filter hook input priority 0;
            tcp sport {local} drop
            tcp dport {local} drop
        }}
    }}
    """
    subprocess.run(["nft", "-f", "-"], input=rules, text=True, check=True)


main()
