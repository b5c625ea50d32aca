"""A TCP proxy that delays each request: S3 as it is far away.

Run as `python -m bench.misses.slow_link UPSTREAM_PORT DELAY_MS...`. It prints the port for each
delay and serves until its input ends. A request here is one packet from the client: reads of
objects have no body and fit into one packet.
"""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator

# The size of the pieces of a response: few turns of the loop for a megabyte.
_PIECE_BYTES = 1 << 20
Connected = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def serve(upstream_port: int, delays_ms: list[int]) -> None:
    """Listen on a port for each delay until the input ends, also because the parent died."""

    def proxy(delay_s: float) -> Connected:
        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            far_reader, far_writer = await asyncio.open_connection(
                "127.0.0.1", upstream_port, limit=_PIECE_BYTES
            )
            # Python 3.11 prints a trace for each connection that is open at the end.
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.gather(
                    _pass_on(reader, far_writer, delay_s), _pass_on(far_reader, writer, 0.0)
                )

        return connected

    servers = [
        await asyncio.start_server(proxy(delay_ms / 1000), "127.0.0.1", 0) for delay_ms in delays_ms
    ]
    print(*(server.sockets[0].getsockname()[1] for server in servers), flush=True)
    await asyncio.to_thread(sys.stdin.read)


async def _pass_on(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, delay_s: float
) -> None:
    with contextlib.suppress(ConnectionError):
        while piece := await reader.read(_PIECE_BYTES):
            if delay_s:
                await asyncio.sleep(delay_s)
            writer.write(piece)
            await writer.drain()
    with contextlib.suppress(OSError):
        writer.close()


@contextlib.contextmanager
def running(upstream_port: int, delays_ms: list[int]) -> Iterator[dict[int, str]]:
    """Run the proxy in a process of its own; yield the endpoint for each delay."""
    command = [sys.executable, "-m", __name__, str(upstream_port), *map(str, delays_ms)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        ports = process.stdout.readline().split()
        yield {
            delay_ms: f"http://127.0.0.1:{port}"
            for delay_ms, port in zip(delays_ms, ports, strict=True)
        }
    finally:
        process.communicate()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), [int(delay) for delay in sys.argv[2:]]))
