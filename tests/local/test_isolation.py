"""Who sees what a worker writes into its tensors, and what does a Get cost in memory?"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import numpy as np
import torch

from cachesvc_client import CacheClient, LocalOptions
from tests.local import picture_steps, steps
from tests.local.conftest import NewWorker
from tests.local.processes import resident_bytes
from tests.local.versioned import put_version, version_of, words_of
from tests.local.workers import Held
from tests.support import sample_objects
from tests.support.daemons import Daemon
from tests.support.sample_objects import REAL, fresh_id

NewClient = Callable[..., CacheClient]


def put_person(client: CacheClient, user_id: str) -> sample_objects.Sample:
    sample = sample_objects.person(user_id, sizes=REAL)
    client.put_human(user_id, **sample.values)  # type: ignore[arg-type]
    return sample


def test_what_a_worker_writes_is_seen_by_nobody_else(
    daemon: Daemon, client: CacheClient, new_worker: NewWorker
) -> None:
    text = fresh_id("text")
    put_version(client, text, 1)
    writer, other = new_worker(daemon.target), new_worker(daemon.target)
    writer.do(steps.get, "mine", text)
    other.do(steps.get, "before", text)
    before = hashlib.sha256(client.get("text", text).blob).hexdigest()
    count = writer.do(steps.word_count, "mine")
    for at in range(0, count, 100):
        writer.do(steps.write_word, "mine", at, 99)
    assert writer.do(steps.words, "mine", [0, 100]) == [99, 99]
    assert writer.do(steps.get, "next", text) == 1
    assert other.do(steps.version, "before") == 1
    assert other.do(steps.get, "after", text) == 1
    assert hashlib.sha256(client.get("text", text).blob).hexdigest() == before


def test_two_gets_of_one_process_share_nothing(client: CacheClient) -> None:
    text = fresh_id("text")
    put_version(client, text, 1)
    first, second = client.get_text(text), client.get_text(text)
    first["prompt_embeds"].fill_(99)
    assert version_of(second) == 1
    assert version_of(client.get_text(text)) == 1


def test_with_shared_mappings_the_gets_of_a_key_are_one_and_other_workers_see_none_of_it(
    daemon: Daemon, client: CacheClient, new_client: NewClient
) -> None:
    text = fresh_id("text")
    put_version(client, text, 1)
    sharing = new_client(daemon, local=LocalOptions(share_mappings=True))
    sharing.get_text(text)
    first, second = sharing.get_text(text), sharing.get_text(text)
    assert np.shares_memory(words_of(first), words_of(second))
    first["prompt_embeds"].fill_(99)
    assert int(second["prompt_embeds"][0]) == 99
    assert version_of(client.get_text(text)) == 1
    put_version(client, text, 2)
    assert version_of(sharing.get_text(text)) == 2


def test_all_values_of_a_person_come_back_as_they_were_put(client: CacheClient) -> None:
    user = fresh_id("user")
    sample = put_person(client, user)
    for entry in (client.get_human(user), client.get_human(user)):
        assert steps.is_mapped(Held(client, {"it": entry}), "it")
        assert sample.matches(bytes(entry.blob))
        assert torch.equal(entry["pose_tensor"], sample.values["pose_tensor"])
        mask = entry.image("mask")
        assert (mask.mode, mask.tobytes()) == ("L", sample.values["mask"].tobytes())


def test_fields_start_where_their_type_wants_them(client: CacheClient) -> None:
    user = fresh_id("user")
    put_person(client, user)
    pose = client.get_human(user)["pose_tensor"]
    assert pose.data_ptr() % 16 == 0
    assert pose.is_contiguous()


def test_a_grey_image_shares_the_entrys_memory(client: CacheClient) -> None:
    user = fresh_id("user")
    put_person(client, user)
    entry = client.get_human(user)
    image = entry.image("mask")
    entry["mask"][0, 0] = 17
    assert image.getpixel((0, 0)) == 17


def test_what_is_not_touched_costs_no_memory(
    daemon: Daemon, client: CacheClient, new_worker: NewWorker
) -> None:
    user = fresh_id("user")
    put_person(client, user)
    worker = new_worker(daemon.target)
    size_bytes = worker.do(picture_steps.get_human, "person", user)
    mask_bytes = worker.do(picture_steps.read_mask, "person")
    # The kernel maps groups of 64 KB around each touched page: the header's, and both ends'.
    in_memory = resident_bytes(worker.pid, daemon.runtime_dir / "l1")
    assert mask_bytes <= in_memory <= mask_bytes + 4 * 65_536
    assert in_memory < size_bytes / 2


def test_an_image_needs_no_torch(
    daemon: Daemon, client: CacheClient, new_worker: NewWorker
) -> None:
    user = fresh_id("user")
    put_person(client, user)
    worker = new_worker(daemon.target)
    worker.do(picture_steps.get_human, "person", user)
    worker.do(picture_steps.read_mask, "person")
    assert not worker.do(steps.imported, "torch")
