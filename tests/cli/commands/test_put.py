"""Does `cachesvc put` store exactly what the files hold?"""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image

from cachesvc_client import CacheClient
from tests.cli.conftest import Run, RunApart
from tests.support import sample_objects
from tests.support.daemons import Daemon
from tests.support.sample_objects import Sample, fresh_id


@pytest.fixture
def files(folder: Path) -> tuple[Sample, list[str]]:
    """A person's fields: PNGs, and the pose as .npy."""
    folder.mkdir()
    person = sample_objects.person("any")
    for name in ("human_img", "mask", "mask_gray"):
        person.values[name].save(folder / f"{name}.png")
    np.save(folder / "pose_tensor.npy", person.values["pose_tensor"].numpy())
    return person, [str(path) for path in folder.iterdir()]


def test_a_person_put_from_files_is_served(
    run: Run, daemon: Daemon, files: tuple[Sample, list[str]]
) -> None:
    person, paths = files
    user = fresh_id("u")
    assert run("put", "human", user, *paths).exit_code == 0
    with CacheClient(daemon.target) as client:
        assert person.matches(bytes(client.get_human(user).blob))


def test_what_get_wrote_can_be_put_again(run: Run, daemon: Daemon, folder: Path) -> None:
    user, other = fresh_id("u"), fresh_id("u")
    person = sample_objects.person(user)
    sample_objects.put_in_folder(daemon.origin_dir, person)
    assert run("get", "human", user, "--output", str(folder)).exit_code == 0
    assert run("put", "human", other, str(folder / "human.safetensors")).exit_code == 0
    with CacheClient(daemon.target) as client:
        assert person.matches(bytes(client.get_human(other).blob))


def test_a_file_of_another_name_is_given_as_field_equals_file(
    run: Run, daemon: Daemon, folder: Path
) -> None:
    folder.mkdir()
    clothing = fresh_id("g")
    garment = sample_objects.garment(clothing, "o")
    garment.values["garm_img"].save(folder / "shirt.png")
    safetensors.torch.save_file(
        {"garm_tensor": garment.values["garm_tensor"]}, folder / "t.safetensors"
    )
    picture = f"garm_img={folder / 'shirt.png'}"
    assert run("put", "garment", clothing, picture, str(folder / "t.safetensors")).exit_code == 0
    with CacheClient(daemon.target) as client:
        assert garment.matches(bytes(client.get_garment(clothing).blob))


def test_persist_writes_the_origins_objects(run: Run, daemon: Daemon, folder: Path) -> None:
    folder.mkdir()
    clothing, owner = fresh_id("g"), fresh_id("u")
    text = sample_objects.text(clothing, owner)
    (folder / "text.safetensors").write_bytes(text.blob())
    path = str(folder / "text.safetensors")
    assert run("put", "text", clothing, path, "--owner", owner, "--persist").exit_code == 0
    assert all((daemon.origin_dir / key).is_file() for key in text.objects)


def test_the_time_to_live_is_the_one_given(run: Run, files: tuple[Sample, list[str]]) -> None:
    user = fresh_id("u")
    assert run("put", "human", user, *files[1], "--ttl", "2h").exit_code == 0
    shown = json.loads(run("inspect", "human_upper_body", user, "--json").stdout)
    assert 3600 < shown["tiers"][0]["expires_in_s"] <= 7200


def test_a_source_older_than_the_last_change_is_refused(
    run: Run, files: tuple[Sample, list[str]]
) -> None:
    user = fresh_id("u")
    assert run("invalidate", "--user", user).exit_code == 0
    refused = run("put", "human", user, *files[1], "--as-of", "2020-01-01T00:00:00Z")
    assert refused.exit_code == 1
    assert "PUT_OUTDATED" in refused.stderr


def test_an_entry_without_all_its_fields_is_refused(
    run: Run, files: tuple[Sample, list[str]]
) -> None:
    without_pose = [path for path in files[1] if not path.endswith(".npy")]
    refused = run("put", "human", fresh_id("u"), *without_pose)
    assert refused.exit_code == 2
    assert "pose_tensor" in refused.stderr


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("mask.png", b"no image"),
        ("pose_tensor.npy", b"no array"),
        ("human.safetensors", b"no tensors at all"),
        ("pose_tensor.pkl", b"cos\nsystem\n(S'true'\ntR."),
    ],
)
def test_a_file_that_cannot_be_read_is_named(
    run: Run, folder: Path, name: str, content: bytes
) -> None:
    folder.mkdir()
    (folder / name).write_bytes(content)
    refused = run("put", "human", fresh_id("u"), str(folder / name))
    assert refused.exit_code == 2
    assert name in refused.stderr
    assert refused.stderr.count("\n") == 1


def test_an_array_of_pickled_objects_is_refused(run: Run, folder: Path) -> None:
    folder.mkdir()
    np.save(folder / "pose_tensor.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    refused = run("put", "human", fresh_id("u"), str(folder / "pose_tensor.npy"))
    assert refused.exit_code == 2


def test_a_field_given_twice_is_refused(run: Run, files: tuple[Sample, list[str]]) -> None:
    refused = run("put", "human", fresh_id("u"), *files[1], files[1][0])
    assert refused.exit_code == 2
    assert "twice" in refused.stderr


@pytest.mark.parametrize("torch_is_there", [True, False])
def test_bf16_is_stored_with_torch_and_without_it_says_what_is_missing(
    run_apart: RunApart, daemon: Daemon, folder: Path, torch_is_there: bool
) -> None:
    folder.mkdir()
    clothing = fresh_id("g")
    pose = torch.randn(1, 3, 8, 8).bfloat16()
    safetensors.torch.save_file({"garm_tensor": pose}, folder / "t.safetensors")
    Image.new("RGB", (8, 8)).save(folder / "garm_img.png")
    done = run_apart(
        *("put", "garment", clothing, str(folder / "t.safetensors")),
        *(str(folder / "garm_img.png"), "--target", daemon.target),
        before="" if torch_is_there else "import sys\nsys.modules['torch'] = None",
    )
    if not torch_is_there:
        assert done.returncode == 2
        assert "needs torch" in done.stderr
        return
    assert done.returncode == 0, done.stderr
    with CacheClient(daemon.target) as client:
        assert torch.equal(client.get_garment(clothing)["garm_tensor"], pose)


_UNKNOWN = ("F8_E4M3", "F8_E5M2", "F8_E8M0", "F4", "U16", "U32", "U64", "C64")


@pytest.mark.parametrize("dtype", _UNKNOWN)
def test_a_dtype_that_no_entry_holds_is_one_line_that_names_the_field(
    run: Run, folder: Path, dtype: str
) -> None:
    folder.mkdir()
    bits = {"F4": 4, "U16": 16, "U32": 32, "U64": 64, "C64": 64}.get(dtype, 8)
    end = 16 * bits // 8
    header = json.dumps(
        {"pose_tensor": {"dtype": dtype, "shape": [16], "data_offsets": [0, end]}}
    ).encode()
    raw = len(header).to_bytes(8, "little") + header + bytes(end)
    (folder / "human.safetensors").write_bytes(raw)
    refused = run("put", "human", fresh_id("u"), str(folder / "human.safetensors"))
    assert refused.exit_code == 2
    assert "human.safetensors: cannot be read" in refused.stderr
    assert refused.stderr.count("\n") == 1


@pytest.mark.parametrize("what", ["directory", "missing", "fifo", "cut", "zip"])
def test_what_is_no_readable_file_is_one_line(run: Run, folder: Path, what: str) -> None:
    folder.mkdir()
    path = folder / ("mask.png" if what == "cut" else "pose_tensor.npy")
    if what == "directory":
        path.mkdir()
    elif what == "fifo":
        os.mkfifo(path)
    elif what == "cut":
        Image.new("RGB", (64, 64)).save(path)
        path.write_bytes(path.read_bytes()[:-30])
    elif what == "zip":
        with path.open("wb") as file:
            np.savez(file, pose=np.zeros(3))
    refused = run("put", "human", fresh_id("u"), str(path))
    assert refused.exit_code == 2
    assert refused.stderr.count("\n") == 1
    assert "Traceback" not in refused.stderr
