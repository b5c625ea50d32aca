"""Can a path reach an entry that it does not name?

The targets are sent raw, as no client library sends them. Promise 10: ids are checked before they
touch anything; `..` deletes nothing.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cachesvc_format.names import is_id
from cachesvc_proto.v1 import cache_pb2 as pb
from tests.support import sample_objects
from tests.support.daemons import Daemon
from tests.support.grpc_calls import get_human
from tests.support.http_calls import ask_raw
from tests.support.sample_objects import fresh_id

ATTACKS = [
    b"/cache/human/..%2F..",
    b"/cache/human/..%2f..",
    b"/cache/human/..",
    b"/cache/human/.",
    b"/cache/human/../all",
    b"/cache/human/%2e%2e/all",
    b"/cache/human/..%2Fall",
    b"/cache/human/..%5Call",
    b"/cache/human/..\\all",
    b"/cache/human/x/../../all",
    b"/cache/./all",
    b"/cache//all",
    b"//cache/all",
    b"/cache/all/",
    b"/cache/all/.",
    b"/cache/%61ll",
    b"/cache/all;x",
    b"/cache/all#x",
    b"/cache/human/",
    b"/cache/human/%00",
    b"/cache/human/-rf",
    b"/cache/human/" + b"x" * 129,
    b"/cache/human/" + "\u00fc".encode(),
    b"/cache/human/%C3%BC",
    b"/cache/human/%",
    b"/cache/human/{user_id}",
    b"http://localhost/cache/all",
    b"localhost:80",
    b"*",
    b"cache/all",
    b"/api/key/human_upper_body/..%2F..",
    b"/api/key/../cache/all",
]


@pytest.fixture
def victim(daemon: Daemon) -> Iterator[None]:
    """Have a person in L1, and check at the end that the person is still there."""
    user = fresh_id("u")
    sample_objects.put_in_folder(daemon.origin_dir, sample_objects.person(user))
    get_human(daemon.stub(), user)
    yield
    assert get_human(daemon.stub(), user).info.tier == pb.TIER_MEMORY


@pytest.mark.usefixtures("victim")
@pytest.mark.parametrize("target", ATTACKS, ids=repr)
def test_a_path_that_is_not_made_of_ids_is_400_and_deletes_nothing(
    daemon: Daemon, target: bytes
) -> None:
    before = daemon.metrics()["cachesvc_invalidations_total"]
    assert ask_raw(daemon, target).status == 400
    assert daemon.metrics()["cachesvc_invalidations_total"] == before


HOSTILE = [
    "..",
    ".",
    "/",
    "\\",
    "%2F",
    "%2e",
    "%252F",
    "%00",
    "-",
    "~",
    ";",
    "#",
    "\u00fc",
    "all",
    "a",
]
ANY = st.text(max_size=20)
# A character that ends the request line or the path would make another request, not another id.
IN_A_LINE = st.text(st.characters(exclude_categories=("Cc", "Cs"), exclude_characters=" ?"))
# Most of these are valid ids; each valid one costs a commit.
NEARLY = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,140}", fullmatch=True)


def ids(text: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.one_of(
        st.lists(st.sampled_from(HOSTILE), max_size=6).map("".join),
        text,
    )


@pytest.mark.usefixtures("victim")
@pytest.mark.parametrize("is_encoded", [True, False], ids=["percent-encoded", "as it is"])
def test_of_5000_generated_ids_only_those_that_are_ids_are_taken(
    daemon: Daemon, is_encoded: bool
) -> None:
    @settings(max_examples=50)
    @given(st.lists(ids(ANY if is_encoded else IN_A_LINE), min_size=49, max_size=49), NEARLY)
    def check(batch: list[str], nearly: str) -> None:
        with keeping_alive(daemon) as send:
            for entry_id in [*batch, nearly]:
                text = quote(entry_id, safe="") if is_encoded else entry_id
                status = send(text.encode())
                if is_id(entry_id):
                    assert status == 200, entry_id
                else:
                    # Several ids with slashes between them are a path without a route.
                    assert status == 400 or (status == 404 and "/" in text), entry_id

    check()


@contextmanager
def keeping_alive(daemon: Daemon) -> Iterator[Send]:
    """Yield a function that sends DELETEs over one connection while the connection lives."""
    sender = Send(daemon.http_port)
    try:
        yield sender
    finally:
        sender.close()


class Send:
    """Sends targets unchanged."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._stream: BinaryIO | None = None
        self._socket: socket.socket | None = None

    def __call__(self, entry_id: bytes) -> int:
        if self._socket is None:
            self._socket = socket.create_connection(("127.0.0.1", self._port), timeout=20)
            self._stream = self._socket.makefile("rb")
        assert self._stream is not None
        target = b"/cache/human/" + entry_id
        self._socket.sendall(b"DELETE " + target + b" HTTP/1.1\r\nHost: localhost\r\n\r\n")
        status = int(self._stream.readline().split()[1])
        headers = dict(iter(self._header, None))
        self._stream.read(int(headers[b"content-length"]))
        if headers[b"content-type"].startswith(b"text/plain"):
            self.close()  # the parser itself refused, and then hangs up
        return status

    def _header(self) -> tuple[bytes, bytes] | None:
        assert self._stream is not None
        name, _, value = self._stream.readline().strip().partition(b":")
        return (name.lower(), value.strip()) if name else None

    def close(self) -> None:
        if self._socket is not None and self._stream is not None:
            self._stream.close()
            self._socket.close()
        self._socket = self._stream = None
