"""Does the caller get everything that the daemon says of an entry?"""

from __future__ import annotations

import pytest

from cachesvc_client._reading import read_put
from cachesvc_proto.v1 import cache_pb2 as pb


@pytest.mark.parametrize("stale", [False, True])
def test_an_entry_says_whether_it_is_stale(stale: bool) -> None:
    answer = pb.PutResponse(info=pb.EntryInfo(stale=stale))
    assert read_put(memoryview(answer.SerializeToString())).stale is stale


def test_an_older_daemon_that_says_nothing_of_it_has_served_nothing_stale() -> None:
    assert read_put(memoryview(pb.PutResponse().SerializeToString())).stale is False
