"""A server process to kill: `python serve.py SOCKET [hang]`; prints `ready`, then `called`."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

import grpc

from cachesvc_client.testing import InMemoryCacheClient
from tests.client.support import values
from tests.client.support.scripted_server import ScriptedServer


def hang(_: bytes, __: grpc.ServicerContext) -> bytes:
    sys.stdout.write("called\n")
    sys.stdout.flush()
    threading.Event().wait()
    return b""


server = ScriptedServer(Path(sys.argv[1]))
InMemoryCacheClient(server.service).put_human("u1", **values.human())
if sys.argv[2:] == ["hang"]:
    server.script("GetHuman", hang)
server.start()
sys.stdout.write("ready\n")
sys.stdout.flush()
threading.Event().wait()
