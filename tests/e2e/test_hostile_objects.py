"""Does an object at the origin run code, or does one bad member of a try-on fail the others?"""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import grpc
import pytest

from cachesvc_proto.v1 import cache_pb2 as pb
from tests.conftest import NewDaemon
from tests.support import sample_objects
from tests.support.daemons import Daemon
from tests.support.grpc_calls import TIMEOUT_S, get_human, put, refused
from tests.support.sample_objects import Sample, fresh_id

Code = grpc.StatusCode
OK = (0, "")
NOT_FOUND = (Code.NOT_FOUND.value[0], "NO_SUCH_OBJECT")


class RunsACommand:
    """Unpickling it creates the canary."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self.canary}",)


def attacked_person(user: str, canary: Path) -> tuple[Sample, str]:
    """Return a person whose pose runs a command, and that object's key."""
    person = sample_objects.person(user)
    pose = f"users/{user}/vton-cache/upper/pose_tensor.pkl"
    person.objects[pose] = pickle.dumps(RunsACommand(canary))
    return person, pose


def try_on(daemon: Daemon, user: str, clothing: str) -> pb.GetTryOnResponse:
    request = pb.GetTryOnRequest(
        user_id=user, category=pb.HUMAN_CATEGORY_UPPER_BODY, clothing_id=clothing
    )
    answer: pb.GetTryOnResponse = daemon.stub().GetTryOn(request, timeout=TIMEOUT_S)
    return answer


def test_a_malicious_pickle_is_data_loss_and_runs_nothing(daemon: Daemon, tmp_path: Path) -> None:
    """Promise 7."""
    canary = tmp_path / "canary"
    pickle.loads(pickle.dumps(RunsACommand(canary)))
    assert canary.exists(), "the attack itself must work"
    canary.unlink()
    user = fresh_id("u")
    person, pose = attacked_person(user, canary)
    sample_objects.put_in_folder(daemon.origin_dir, person)

    with refused() as refusal:
        get_human(daemon.stub(), user)

    assert refusal.status == (Code.DATA_LOSS, "PICKLE_REFUSED")
    assert list(refusal.detail.object_keys) == [pose]
    assert not canary.exists()
    assert user not in daemon.log_text()
    sample_objects.put_in_folder(daemon.origin_dir, sample_objects.person(user))
    assert get_human(daemon.stub(), user).info.tier == pb.TIER_ORIGIN


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "OBJECT_EMPTY"),
        (b"GIF89a", "IMAGE_REFUSED"),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "IMAGE_REFUSED"),
    ],
    ids=["empty", "gif", "no header"],
)
def test_an_image_that_is_none_is_data_loss_and_named(
    daemon: Daemon, data: bytes, reason: str
) -> None:
    user = fresh_id("u")
    person = sample_objects.person(user)
    mask = f"users/{user}/vton-cache/upper/mask.png"
    person.objects[mask] = data
    sample_objects.put_in_folder(daemon.origin_dir, person)
    with refused() as refusal:
        get_human(daemon.stub(), user)
    assert refusal.status == (Code.DATA_LOSS, reason)
    assert list(refusal.detail.object_keys) == [mask]


def test_a_try_on_with_several_failures_names_the_status_of_each_part(
    daemon: Daemon, tmp_path: Path
) -> None:
    user, clothing = fresh_id("u"), fresh_id("c")
    person, pose = attacked_person(user, tmp_path / "canary")
    sample_objects.put_in_folder(daemon.origin_dir, person, sample_objects.text(clothing, user))
    with refused() as refusal:
        try_on(daemon, user, clothing)
    assert refusal.status == (Code.DATA_LOSS, "PICKLE_REFUSED")
    assert refusal.parts() == {
        "human": (Code.DATA_LOSS.value[0], "PICKLE_REFUSED"),
        "garment": NOT_FOUND,
        "text": OK,
    }
    assert pose in refusal.detail.object_keys


def test_a_try_on_of_which_two_parts_are_absent_is_not_found(daemon: Daemon) -> None:
    user, clothing = fresh_id("u"), fresh_id("c")
    sample_objects.put_in_folder(daemon.origin_dir, sample_objects.garment(clothing, user))
    with refused() as refusal:
        try_on(daemon, user, clothing)
    assert refusal.status == (Code.NOT_FOUND, "NO_SUCH_OBJECT")
    assert refusal.parts() == {"human": NOT_FOUND, "garment": OK, "text": NOT_FOUND}


def test_what_is_too_large_is_exhausted_wherever_it_comes_from(new_daemon: NewDaemon) -> None:
    """Promise 5."""
    # A small person has 32,000 bytes in members of at most 19,000.
    daemon = new_daemon(LIMITS__MAX_ENTRY_BYTES="20000")
    user, clothing = fresh_id("u"), fresh_id("c")
    person = sample_objects.person(user)
    sample_objects.put_in_folder(daemon.origin_dir, person, sample_objects.text(clothing, user))
    with refused() as refusal:
        put(daemon.stub(), "human_upper_body", user, person.blob())
    assert refusal.status == (Code.RESOURCE_EXHAUSTED, "ENTRY_TOO_LARGE")
    with refused() as refusal:
        try_on(daemon, user, clothing)
    assert refusal.status == (Code.RESOURCE_EXHAUSTED, "ENTRY_TOO_LARGE")
    assert refusal.parts() == {
        "human": (Code.RESOURCE_EXHAUSTED.value[0], "ENTRY_TOO_LARGE"),
        "garment": NOT_FOUND,
        "text": OK,
    }
    wide = f"users/{user}/vton-cache/text/{clothing}_prompt_embeds.pkl"
    text = sample_objects.text(clothing, user)
    text.objects[wide] = bytes(20_001)
    sample_objects.put_in_folder(daemon.origin_dir, text)
    stub = daemon.stub()
    stub.Invalidate(pb.InvalidateRequest(clothing_id=clothing))
    with refused() as refusal:
        stub.GetText(pb.GetTextRequest(clothing_id=clothing, owner_id=user))
    assert refusal.status == (Code.DATA_LOSS, "OBJECT_TOO_LARGE")
