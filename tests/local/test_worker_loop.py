"""Does the example worker do what its readers will copy?"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from types import ModuleType
from typing import Any

import pytest
from PIL import Image

from cachesvc_client import CacheClient, CacheUnavailable, OriginUnavailable
from tests.conftest import NewDaemon
from tests.support import sample_objects
from tests.support.daemons import ROOT, Daemon
from tests.support.sample_objects import fresh_id

EXAMPLE = ROOT / "examples/worker_loop.py"


@pytest.fixture(scope="module")
def example() -> ModuleType:
    spec = importlib.util.spec_from_file_location("worker_loop", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["worker_loop"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def tryon_ids(daemon: Daemon) -> tuple[str, str]:
    """A person and a garment of theirs at the origin."""
    user, coat = fresh_id("user"), fresh_id("coat")
    sample_objects.put_in_folder(
        daemon.origin_dir,
        sample_objects.person(user),
        sample_objects.garment(coat, user),
        sample_objects.text(coat, user),
    )
    return user, coat


def test_a_try_on_is_shown(
    example: ModuleType, client: CacheClient, tryon_ids: tuple[str, str]
) -> None:
    got: dict[str, Any] = {}

    def pipe(**inputs: Any) -> Image.Image:
        got.update(inputs)
        return example.paste_garment(**inputs)  # type: ignore[no-any-return]

    result = example.Worker(client, pipe).run(example.Job(*tryon_ids))
    assert isinstance(result, example.Shown)
    assert result.picture.size == got["image"].size
    assert set(got) >= {"pose_img", "cloth", "text_embeds_cloth", "mask_image", "prompt_embeds"}


def test_what_is_absent_is_named_and_the_model_does_not_run(
    example: ModuleType, client: CacheClient, tryon_ids: tuple[str, str]
) -> None:
    user, _ = tryon_ids
    worker = example.Worker(client, _must_not_run)
    assert worker.run(example.Job(fresh_id("user"), fresh_id("coat"))) == example.ToPrepare(
        ("human", "garment", "text")
    )
    assert worker.run(example.Job(user, fresh_id("coat"))) == example.ToPrepare(("garment", "text"))


@pytest.mark.parametrize("part", ["human", "garment"])
def test_a_result_whose_source_was_changed_meanwhile_is_not_shown(
    example: ModuleType, client: CacheClient, tryon_ids: tuple[str, str], part: str
) -> None:
    user, coat = tryon_ids
    changed: dict[str, Any] = {"user_id": user} if part == "human" else {"clothing_id": coat}

    def pipe_during_which_it_changes(**inputs: Any) -> Image.Image:
        client.invalidate(**changed)
        return example.paste_garment(**inputs)  # type: ignore[no-any-return]

    worker = example.Worker(client, pipe_during_which_it_changes)
    assert worker.run(example.Job(user, coat)) == example.ToPrepare((part,))


def test_the_gpu_is_free_while_inputs_are_fetched(
    example: ModuleType, client: CacheClient, tryon_ids: tuple[str, str]
) -> None:
    # With the GPU taken by another thread for good, absent inputs are still reported.
    worker = example.Worker(client, _must_not_run)
    with worker._gpu:
        assert isinstance(worker.run(example.Job(fresh_id("u"), fresh_id("c"))), example.ToPrepare)


def test_a_batch_is_done_in_order(
    example: ModuleType, client: CacheClient, tryon_ids: tuple[str, str]
) -> None:
    jobs = [example.Job(*tryon_ids), example.Job(fresh_id("user"), tryon_ids[1])]
    results = example.Worker(client, example.paste_garment).run_all(jobs)
    assert [type(result).__name__ for result in results] == ["Shown", "ToPrepare"]


def test_a_daemon_that_is_away_is_an_error_and_not_an_absence(
    example: ModuleType, new_daemon: NewDaemon
) -> None:
    daemon = new_daemon()
    daemon.stop()
    with CacheClient(daemon.target, wait_s=0) as away:
        worker = example.Worker(away, _must_not_run)
        with pytest.raises((CacheUnavailable, OriginUnavailable)):
            worker.run(example.Job(fresh_id("user"), fresh_id("coat")))


def test_it_runs_from_the_command_line(daemon: Daemon, tryon_ids: tuple[str, str]) -> None:
    environment = {"PYTHONPATH": str(ROOT / "client"), "CACHESVC_GRPC__SOCKET": str(daemon.socket)}
    user, coat = tryon_ids
    ran = subprocess.run(
        [sys.executable, str(EXAMPLE), user, coat, coat],
        env=environment,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    assert [line.split(" in ")[0] for line in ran.stdout.splitlines()] == [f"{coat}: done"] * 2
    assert "shared_file" in ran.stdout


def _must_not_run(**_: Any) -> Image.Image:
    raise AssertionError("the model ran without its inputs")
