"""The gRPC channel's settings, the same for the sync and the asyncio client.

Measured over a unix socket with 10.2 MB answers, bytes in and bytes out, sync
client and grpc.aio server, nine sets interleaved on 2 cores, three runs: p50 4-7 ms
with or without `http2.lookahead_bytes`, `http2.max_frame_size`, `http2.bdp_probe`
and larger read chunks, and the order changed from run to run. So none of them is set.
"""

from __future__ import annotations

# Fills of a cold cache take seconds; beyond this something is wrong.
DEFAULT_TIMEOUT_S = 30.0
# A warm-up fetches many entries, and goes on if the client stops.
DEFAULT_WARM_TIMEOUT_S = 300.0
# Covers a restart of the daemon: beside workers that keep every core busy a start takes some
# seconds, and a service manager waits 2 s before it. A third of the call's time, so that a fill has
# the rest.
DEFAULT_WAIT_S = 10.0

# The default of 4 MiB is less than one person.
MAX_RECEIVE_BYTES = 256 * 1024 * 1024

CHANNEL_OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.max_receive_message_length", MAX_RECEIVE_BYTES),
    # The default waits 1 s, then up to 2 minutes: too long for a socket on this host.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1_000),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    # Otherwise a process's channels with equal settings share a connection, and so its backoff.
    ("grpc.use_local_subchannel_pool", 1),
    # A unix socket has no proxy, and an http_proxy variable must not redirect host:port.
    ("grpc.enable_http_proxy", 0),
)

# A peer that disappears (a host loses its power, a firewall forgets the connection) is detected
# within the sum of both times. Data that is not acknowledged within the timeout also ends the
# connection (TCP_USER_TIMEOUT). The daemon allows a ping every 20 s.
KEEPALIVE_TIME_S = 30
KEEPALIVE_TIMEOUT_S = 10
KEEPALIVE_OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.keepalive_time_ms", KEEPALIVE_TIME_S * 1000),
    ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_S * 1000),
    # Ping also without calls, so that the next call finds a working connection.
    ("grpc.keepalive_permit_without_calls", 1),
    # The default stops after two pings without data between them.
    ("grpc.http2.max_pings_without_data", 0),
)

# A daemon that is there answers at once, with any status.
HEALTH_PATH = "/grpc.health.v1.Health/Check"
# For one look for a daemon. A daemon that ends leaves a dead socket behind, and its successor makes
# another, so the socket is opened again after this time.
LOOK_S = 1.0
