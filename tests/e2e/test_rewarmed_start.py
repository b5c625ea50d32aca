"""After a crash, does L1 hold the most recently used entries before any call comes? Promise 6."""

from __future__ import annotations

from cachesvc_proto.v1 import cache_pb2 as pb
from tests.conftest import NewDaemon
from tests.support import sample_objects
from tests.support.daemons import wait_until
from tests.support.grpc_calls import get_human
from tests.support.sample_objects import fresh_id

WITHIN_S = 20.0


def test_a_person_is_in_l1_again_after_a_crash_without_a_get(new_daemon: NewDaemon) -> None:
    daemon, user = new_daemon(L1__REWARM="true"), fresh_id("u")
    person = sample_objects.person(user)
    sample_objects.put_in_folder(daemon.origin_dir, person)
    stub = daemon.stub()
    get_human(stub, user)
    daemon.wait_until_stored()
    daemon.restart()
    key = pb.EntryKey(namespace="human_upper_body", id=user)

    def is_in_memory() -> bool:
        tiers = stub.Inspect(pb.InspectRequest(key=key)).tiers
        return any(found.tier == pb.TIER_MEMORY for found in tiers)

    wait_until(is_in_memory, WITHIN_S)
    metrics = daemon.metrics()
    assert metrics["cachesvc_fills_total"] == 0
    assert metrics['cachesvc_requests_total{tier="disk"}'] == 0
    answer = get_human(stub, user)
    assert answer.info.tier == pb.TIER_MEMORY
    assert person.matches(answer.tensors)
