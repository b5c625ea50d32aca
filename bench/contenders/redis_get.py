"""Redis: redis-py with hiredis, GET over a unix socket, then safetensors' own reader."""

from __future__ import annotations

import shutil

import hiredis  # noqa: F401 redis-py takes it if it is there; without it the row would lie
import redis
import safetensors.torch

from bench.contender import Contender, Unavailable
from bench.servers import Server
from bench.workloads import Fields


class RedisGet(Contender):
    title = "Redis GET (hiredis) + safetensors.torch.load"
    _server: Server | None = None

    def setup(self) -> None:
        program = shutil.which("redis-server")
        if program is None:
            raise Unavailable("redis-server is not installed: apt-get install redis-server")
        path = self.folder / "redis.sock"
        options = ["--port", "0", "--save", "", "--appendonly", "no", "--dir", str(self.folder)]
        self._server = Server([program, "--unixsocket", str(path), *options], path)
        self._redis = redis.Redis(unix_socket_path=str(path))
        self._keys = list(self.workload.parts)
        self._redis.mset(self.workload.blobs())

    def call(self) -> Fields:
        # One round trip, as for one GetTryOn.
        blobs = (
            [self._redis.get(self._keys[0])]
            if len(self._keys) == 1
            else self._redis.mget(self._keys)
        )
        fields: Fields = {}
        for blob in blobs:
            fields |= safetensors.torch.load(blob)
        return fields

    def close(self) -> None:
        if self._server is not None:
            self._server.stop()
