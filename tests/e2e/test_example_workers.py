"""Do the example workers do what their readers will copy? Real uvicorn, a real daemon.

Promise 1, to its last step: a photo that was changed while the model ran is not shown, and
preparing an older photo has no effect. Promise 3: a failure of the cache is never taken for an
absence.
"""

from __future__ import annotations

import base64
import io
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import numpy as np
import pytest
from PIL import Image

from cachesvc_client import CacheClient
from tests.conftest import NewDaemon
from tests.support import sample_objects, server_processes
from tests.support.daemons import ROOT, Daemon, running_daemon
from tests.support.http_calls import Answer, ask_port
from tests.support.sample_objects import Sample, fresh_id, image
from tests.support.server_processes import ReservedPort

TIMEOUT_S = 30
REAL_SIZE = sample_objects.REAL.image
Pixels = np.ndarray[Any, Any]


@dataclass(frozen=True)
class WorkerProcess:
    """An example worker, by its port; `folder` holds its photos."""

    port: int
    folder: Path

    def post(self, path: str, **body: Any) -> Answer:
        return ask_port(self.port, "POST", path, body=body)

    def picture(self, **job: Any) -> Pixels:
        """Return a try-on's pixels. Raises HTTPError."""
        request = Request(
            f"http://127.0.0.1:{self.port}/tryon",
            json.dumps(job).encode(),
            {"Content-Type": "application/json"},
        )
        with urlopen(request, timeout=TIMEOUT_S) as answer:
            return pixels(answer.read())

    def while_the_model_runs(self, do: Callable[[], object], **job: Any) -> Answer:
        """Ask for a try-on, call `do` while the model runs, and return the answer."""
        began, go = self.folder / "began", self.folder / "go"
        os.mkfifo(go)
        os.mkfifo(began)
        with ThreadPoolExecutor(1) as pool:
            answer = pool.submit(self.post, "/tryon", **job)
            began.read_bytes()  # returns once the model runs
            began.unlink()
            do()
            go.write_bytes(b"")
            go.unlink()
            return answer.result()

    def write_photo(self, name: str, seed: int) -> Image.Image:
        photo = image("RGB", REAL_SIZE, seed)
        fresh = self.folder / "photos" / f"{name}.new"
        photo.save(fresh, format="PNG")
        fresh.rename(fresh.with_suffix(".png"))
        return photo


@contextmanager
def running_worker(kind: str, daemon: Daemon, folder: Path) -> Iterator[WorkerProcess]:
    (folder / "photos").mkdir()
    reserved = ReservedPort()
    paths = (ROOT, ROOT / "client", ROOT / "examples/worker")
    program = [sys.executable, "-m", "tests.support.worker_process"]
    process = server_processes.start(
        [*program, kind, daemon.target, str(reserved.number), str(folder)],
        folder / "log",
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths))},
    )
    try:
        url = f"http://127.0.0.1:{reserved.number}/"
        server_processes.wait_until_http_answers(url, process, folder / "log")
        yield WorkerProcess(reserved.number, folder)
    finally:
        server_processes.kill(process)
        reserved.release()


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon for this file alone. On the shared one another file's test could invalidate
    everything:

    another test: invalidates everything | the worker: reads a photo, as of its clock less the
    margin, which lies before that | its Put is outdated, rightly.
    """
    with running_daemon(tmp_path_factory.mktemp("daemon"), is_forked=True) as running:
        yield running


@pytest.fixture(scope="module", params=["new", "v2"])
def worker(
    request: pytest.FixtureRequest, daemon: Daemon, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[WorkerProcess]:
    """Each of the two workers, connected to this file's daemon."""
    with running_worker(request.param, daemon, tmp_path_factory.mktemp("worker")) as running:
        yield running


@pytest.fixture(scope="module")
def new_worker(daemon: Daemon, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WorkerProcess]:
    with running_worker("new", daemon, tmp_path_factory.mktemp("new-worker")) as running:
        yield running


@dataclass(frozen=True)
class Prepared:
    """A person, and a garment of another user, stored at the origin."""

    person: Sample
    job: dict[str, Any]


@pytest.fixture
def prepared(daemon: Daemon) -> Prepared:
    user, coat, owner = fresh_id("user"), fresh_id("coat"), fresh_id("owner")
    person = sample_objects.person(user)
    sample_objects.put_in_folder(
        daemon.origin_dir,
        person,
        sample_objects.garment(coat, owner),
        sample_objects.text(coat, owner),
    )
    return Prepared(person, {"user_id": user, "clothing_id": coat, "owner_id": owner})


def pixels(png: bytes) -> Pixels:
    with Image.open(io.BytesIO(png)) as picture:
        return np.asarray(picture)


def shows(picture: Pixels, photo: Any) -> bool:
    """Return whether `picture` was made of `photo`: the model leaves the first third as it is."""
    expected = np.asarray(photo)
    top = expected.shape[0] // 3
    return picture.shape == expected.shape and np.array_equal(picture[:top], expected[:top])


def test_a_try_on_is_a_picture_of_the_person(worker: WorkerProcess, prepared: Prepared) -> None:
    picture = worker.picture(**prepared.job)
    assert shows(picture, prepared.person.values["human_img"])
    assert not np.array_equal(picture, np.asarray(prepared.person.values["human_img"]))


def test_what_is_absent_is_named(worker: WorkerProcess, prepared: Prepared) -> None:
    stranger = worker.post("/tryon", **{**prepared.job, "user_id": fresh_id("user")})
    assert (stranger.status, stranger.body) == (404, {"prepare": ["human"]})
    bare = worker.post("/tryon", **{**prepared.job, "clothing_id": fresh_id("coat")})
    assert (bare.status, bare.body) == (404, {"prepare": ["garment", "text"]})


def test_a_batch_answers_each_try_on_by_itself(worker: WorkerProcess, prepared: Prepared) -> None:
    absent = {**prepared.job, "user_id": fresh_id("user")}
    answer = worker.post("/batch", jobs=[prepared.job, absent, prepared.job])
    results = answer.body["results"]
    assert [result["status"] for result in results] == [200, 404, 200]
    assert shows(
        pixels(base64.b64decode(results[2]["picture"])), prepared.person.values["human_img"]
    )


def test_a_prepared_photo_is_used_and_lies_at_the_origin(
    worker: WorkerProcess, prepared: Prepared, daemon: Daemon
) -> None:
    user = fresh_id("user")
    photo = worker.write_photo(user, seed=3)
    assert worker.post("/preprocess/human", user_id=user).status == 204
    assert shows(worker.picture(**{**prepared.job, "user_id": user}), photo)
    stored = daemon.origin_dir / f"users/{user}/vton-cache/upper/human_img.png"
    assert np.array_equal(pixels(stored.read_bytes()), np.asarray(photo))


def test_a_photo_that_is_not_there_is_404(new_worker: WorkerProcess) -> None:
    assert new_worker.post("/preprocess/human", user_id=fresh_id("user")).status == 404


def test_an_id_that_is_a_path_is_refused(worker: WorkerProcess) -> None:
    assert worker.post("/preprocess/human", user_id="../../secret").status == 422


def test_v2s_delete_on_the_worker_is_an_invalidation(
    worker: WorkerProcess, prepared: Prepared, daemon: Daemon
) -> None:
    user = prepared.job["user_id"]
    worker.picture(**prepared.job)
    renewed = sample_objects.person(user, seed=70)
    sample_objects.put_in_folder(daemon.origin_dir, renewed)
    assert ask_port(worker.port, "DELETE", f"/cache/human/{user}").status == 200
    assert shows(worker.picture(**prepared.job), renewed.values["human_img"])


@pytest.mark.parametrize("part", ["human", "garment"])
def test_a_result_whose_source_was_changed_while_the_model_ran_is_not_shown(
    new_worker: WorkerProcess, prepared: Prepared, daemon: Daemon, part: str
) -> None:
    target = "user_id" if part == "human" else "clothing_id"
    with CacheClient(daemon.target) as backend:
        answer = new_worker.while_the_model_runs(
            lambda: backend.invalidate(**{target: prepared.job[target]}), **prepared.job
        )
    assert (answer.status, answer.body) == (409, {"prepare": [part]})
    assert shows(new_worker.picture(**prepared.job), prepared.person.values["human_img"])


def test_what_is_absent_is_said_while_the_gpu_is_taken(
    new_worker: WorkerProcess, prepared: Prepared
) -> None:
    def ask_for_a_stranger() -> None:
        stranger = {**prepared.job, "user_id": fresh_id("user")}
        assert new_worker.post("/tryon", **stranger).status == 404

    assert new_worker.while_the_model_runs(ask_for_a_stranger, **prepared.job).status == 200


def test_a_host_that_never_heard_of_a_change_does_not_show_the_old_photo(
    new_worker: WorkerProcess, prepared: Prepared, daemon: Daemon
) -> None:
    user, an_hour_ago = prepared.job["user_id"], time.time() - 3600
    for name in prepared.person.objects:
        os.utime(daemon.origin_dir / name, (an_hour_ago, an_hour_ago))
    new_worker.picture(**prepared.job)  # cached, and never invalidated
    changed_at = (datetime.now(UTC) - timedelta(minutes=1)).isoformat()
    old = new_worker.post("/tryon", **prepared.job, photo_changed_at=changed_at)
    assert (old.status, old.body) == (404, {"prepare": ["human"]})

    photo = new_worker.write_photo(user, seed=8)
    made = new_worker.post("/preprocess/human", user_id=user, photo_changed_at=changed_at)
    assert made.status == 204
    assert shows(new_worker.picture(**prepared.job, photo_changed_at=changed_at), photo)


def test_the_preparation_of_a_photo_that_was_changed_meanwhile_is_409(
    new_worker: WorkerProcess, daemon: Daemon
) -> None:
    user = fresh_id("user")
    new_worker.write_photo(user, seed=4)
    job_made_at = datetime.now(UTC)
    with CacheClient(daemon.target) as backend:
        # The next change: later than the job, and than the worker's clock less its margin.
        backend.invalidate(user_id=user, changed_at=datetime.now(UTC))
    answer = new_worker.post(
        "/preprocess/human", user_id=user, photo_changed_at=job_made_at.isoformat()
    )
    assert (answer.status, answer.body["reason"]) == (409, "PUT_OUTDATED")


def test_a_garment_is_prepared_with_its_text(new_worker: WorkerProcess, prepared: Prepared) -> None:
    coat, owner = fresh_id("coat"), fresh_id("owner")
    new_worker.write_photo(coat, seed=5)
    made = new_worker.post(
        "/preprocess/garment", clothing_id=coat, owner_id=owner, description="a red coat"
    )
    assert made.status == 204
    job = {**prepared.job, "clothing_id": coat, "owner_id": owner}
    assert shows(new_worker.picture(**job), prepared.person.values["human_img"])


def test_a_daemon_that_is_away_is_an_error_and_not_an_absence(
    new_daemon: NewDaemon, tmp_path: Path
) -> None:
    daemon = new_daemon()
    with running_worker("new", daemon, tmp_path) as worker:
        daemon.stop()
        answer = worker.post("/tryon", user_id="u", clothing_id="c")
    assert (answer.status, answer.headers["retry-after"]) == (503, "1")
