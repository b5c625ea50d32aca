"""Can any gRPC client read an entry: with the generated stub, raw bytes, default limits, a file?"""

from __future__ import annotations

import grpc
import pytest
from google.protobuf.message import Message

from cachesvc_proto.v1 import cache_pb2 as pb
from tests.support import sample_objects
from tests.support.daemons import Daemon, stub_on
from tests.support.grpc_calls import get_human, put, raw_answer, refused, streamed
from tests.support.sample_objects import REAL, SMALL, Sample, Sizes, fresh_id

ALIGNMENT = 16


class TryOnSamples:
    """One user's try-on, stored at the daemon's origin."""

    def __init__(self, daemon: Daemon, sizes: Sizes) -> None:
        self.user, self.clothing = fresh_id("u"), fresh_id("c")
        self.human = sample_objects.person(self.user, sizes=sizes)
        self.garment = sample_objects.garment(self.clothing, self.user, sizes=sizes)
        self.text = sample_objects.text(self.clothing, self.user, sizes=sizes)
        sample_objects.put_in_folder(daemon.origin_dir, self.human, self.garment, self.text)

    def requests(self) -> dict[str, Message]:
        return {
            "GetHuman": pb.GetHumanRequest(
                user_id=self.user, category=pb.HUMAN_CATEGORY_UPPER_BODY
            ),
            "GetGarment": pb.GetGarmentRequest(clothing_id=self.clothing, owner_id=self.user),
            "GetText": pb.GetTextRequest(clothing_id=self.clothing, owner_id=self.user),
            "GetTryOn": pb.GetTryOnRequest(
                user_id=self.user,
                category=pb.HUMAN_CATEGORY_UPPER_BODY,
                clothing_id=self.clothing,
            ),
        }


@pytest.fixture(scope="module", params=[SMALL, REAL], ids=["small", "real size"])
def samples(request: pytest.FixtureRequest, daemon: Daemon) -> TryOnSamples:
    return TryOnSamples(daemon, request.param)


def entries_of(answer: Message) -> list[pb.Entry]:
    return [value for _, value in answer.ListFields() if isinstance(value, pb.Entry)]


@pytest.mark.parametrize("method", ["GetHuman", "GetGarment", "GetText", "GetTryOn"])
def test_tensors_start_at_a_multiple_of_16_of_an_ordinary_message(
    daemon: Daemon, samples: TryOnSamples, method: str
) -> None:
    channel = daemon.channel(("grpc.max_receive_message_length", -1))
    raw = raw_answer(channel, method, samples.requests()[method])
    message = getattr(pb, f"{method}Response").FromString(raw)
    entries = entries_of(message)
    assert len(entries) == (3 if method == "GetTryOn" else 1)
    expected = {
        "human_upper_body": samples.human,
        "garment": samples.garment,
        "text": samples.text,
    }
    for entry in entries:
        assert raw.index(entry.tensors) % ALIGNMENT == 0
        assert expected[entry.info.key.namespace].matches(entry.tensors)
        assert entry.info.size_bytes == len(entry.tensors)


def test_a_streamed_get_works_with_the_default_limits_that_a_unary_one_breaks(
    daemon: Daemon,
) -> None:
    user = fresh_id("u")
    person = sample_objects.person(user, sizes=REAL)
    sample_objects.put_in_folder(daemon.origin_dir, person)
    stub = stub_on(daemon.channel())
    request = pb.GetRequest(key=pb.EntryKey(namespace="human_upper_body", id=user))

    info, blob = streamed(stub.Get(request, timeout=30))

    assert info.tier == pb.TIER_ORIGIN
    assert info.size_bytes == len(blob) > 4 << 20
    assert person.matches(blob)
    with refused() as refusal:
        get_human(stub, user)
    assert refusal.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    again, same_blob = streamed(stub.Get(request, timeout=30))
    assert (again.tier, again.generation) == (pb.TIER_MEMORY, info.generation)
    assert same_blob == blob


def test_a_shared_file_holds_the_same_bytes_until_it_is_invalidated(daemon: Daemon) -> None:
    user = fresh_id("u")
    person = sample_objects.person(user)
    sample_objects.put_in_folder(daemon.origin_dir, person)
    stub = daemon.stub()
    answer = get_human(stub, user, delivery=pb.DELIVERY_SHARED_FILE)
    attached = stub.Attach(pb.AttachRequest())
    assert attached.runtime_dir == str(daemon.runtime_dir)
    assert answer.boot_id == attached.boot_id
    path = daemon.runtime_dir / answer.file.name
    assert person.matches(path.read_bytes())
    assert path.read_bytes() == get_human(stub, user).tensors
    stub.Invalidate(pb.InvalidateRequest(user_id=user))
    assert not path.exists()


def test_a_put_comes_back_byte_for_byte_from_every_way_of_asking(daemon: Daemon) -> None:
    user, stub = fresh_id("u"), daemon.stub()
    sample: Sample = sample_objects.person(user, seed=7)
    blob = sample.blob()
    info = put(stub, "human_dresses", user, blob)
    entry = get_human(stub, user, pb.HUMAN_CATEGORY_DRESSES)
    assert entry.tensors == blob
    assert entry.info.generation == info.generation
    assert entry.info.tier == pb.TIER_MEMORY
    request = pb.GetRequest(key=pb.EntryKey(namespace="human_dresses", id=user))
    assert streamed(stub.Get(request))[1] == blob
