"""Is a file read by `cachesvc put` as it is read at the origin?

Each file of the table is read by the code of both ways: the pixels or numbers are the same, or
both refuse it with the same sentence. An image that a worker opened with Pillow is a third way.
Some files of the table go both ways through a daemon; what was served is also written by
`get --output`, put with `--persist`, and read from the origin.

Promises 2 and 5. A way that takes what the other refuses keeps an entry that no fill can renew.
"""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
from PIL import Image

from cachesvc.cli.commands import field_files
from cachesvc.codec import members
from cachesvc.core.errors import OriginDataCorrupt
from cachesvc.core.kinds import GARMENT
from cachesvc_client import CacheClient, Entry
from cachesvc_client._values import field_of, fields_of
from cachesvc_format.blob import Tensor
from tests.cli.conftest import Run
from tests.support import sample_objects
from tests.support.both_ways_files import FILES, IMAGE, PLAIN, TENSOR, File
from tests.support.daemons import Daemon
from tests.support.sample_objects import fresh_id

OWNER = "both-ways"
# By the field: how its object at the origin is called.
OBJECT = {IMAGE: "img.png", TENSOR: "tensor.pkl"}


class BothWays:
    """The other field of each garment is a good one."""

    def __init__(self, run: Run, daemon: Daemon, folder: Path) -> None:
        self._run = run
        self._origin = daemon.origin_dir / "users" / OWNER / "vton-cache/garments"
        self._client = CacheClient(daemon.target)
        self._folder = folder
        self._good = sample_objects.garment("any", OWNER)
        self._origin.mkdir(parents=True, exist_ok=True)
        self._put_files = self._files_of_good()

    def close(self) -> None:
        self._client.close()

    def by_origin(self, file: File) -> Entry | str:
        """Return the entry that a fill makes of the file, or the sentence of its refusal."""
        clothing = fresh_id("g")
        objects = {field: self._origin / f"{clothing}_{name}" for field, name in OBJECT.items()}
        for key, data in self._good.objects.items():
            (self._origin / key.rpartition("/")[2].replace("any", clothing)).write_bytes(data)
        objects[file.field].write_bytes(file.data)
        done = self._run("get", "garment", clothing, "--owner", OWNER)
        return self._entry(clothing) if done.exit_code == 0 else _sentence(done.stderr)

    def by_put(self, file: File) -> Entry | str:
        """Return the entry that `cachesvc put` makes of the file, or the sentence."""
        clothing = fresh_id("g")
        path = self._folder / f"{file.field}{file.suffix}"
        path.write_bytes(file.data)
        files = {**self._put_files, file.field: path}
        return self._put(clothing, [f"{field}={path}" for field, path in files.items()])

    def again(self, entry: Entry, field: str) -> Entry:
        """Return what `put --persist` of the files of `get --output` leaves at the origin."""
        clothing, written = fresh_id("g"), self._folder / fresh_id("out")
        done = self._run("get", "garment", entry.info.key.id, "--output", str(written))
        assert done.exit_code == 0, done.output
        files = [str(written / "garment.safetensors")]
        if field == IMAGE:
            files = [f"{IMAGE}={written / 'garm_img.png'}", f"{TENSOR}={self._put_files[TENSOR]}"]
        put = self._put(clothing, files, "--owner", OWNER, "--persist")
        assert isinstance(put, Entry), put
        assert self._run("invalidate", "--clothing", clothing).exit_code == 0
        done = self._run("get", "garment", clothing, "--owner", OWNER)
        assert done.exit_code == 0, done.output
        return self._entry(clothing)

    def _put(self, clothing: str, files: list[str], *options: str) -> Entry | str:
        done = self._run("put", "garment", clothing, *files, *options)
        return self._entry(clothing) if done.exit_code == 0 else _sentence(done.stderr)

    def _entry(self, clothing: str) -> Entry:
        return self._client.get_garment(clothing)

    def _files_of_good(self) -> dict[str, Path]:
        image, tensor = self._folder / "good.png", self._folder / "good.npy"
        values = self._good.values
        values[IMAGE].save(image)
        np.save(tensor, values[TENSOR].numpy())
        return {IMAGE: image, TENSOR: tensor}


def _sentence(stderr: str) -> str:
    """Return the codec's own words: both ways put theirs around them."""
    text = " ".join(stderr.split())
    found = re.search(r"(?:image|pickle) refused: .*?(?= \((?:IMAGE|PICKLE)_REFUSED\)|$)", text)
    return found[0] if found else text


@pytest.fixture
def both_ways(run: Run, daemon: Daemon, tmp_path: Path) -> Iterator[BothWays]:
    ways = BothWays(run, daemon, tmp_path)
    yield ways
    ways.close()


def _by_origin(file: File) -> Tensor | str:
    field = next(field for field in GARMENT.fields if field.name == file.field)
    try:
        members.plan_member(field, file.data)
        return members.decode_member(field, file.data)
    except OriginDataCorrupt as exc:
        return _sentence(exc.message)


def _by_put(file: File, folder: Path) -> Tensor | str:
    path = folder / f"{file.field}{file.suffix}"
    path.write_bytes(file.data)
    printed = io.StringIO()
    try:
        with contextlib.redirect_stderr(printed):
            return fields_of(field_files.read_fields([str(path)]))[file.field]
    except SystemExit:
        return _sentence(printed.getvalue())


@pytest.mark.parametrize("name", FILES)
def test_a_file_is_read_or_refused_alike_by_put_and_from_the_origin(
    name: str, tmp_path: Path
) -> None:
    file = FILES[name]

    filled, put = _by_origin(file), _by_put(file, tmp_path)

    assert filled == put
    if isinstance(filled, str):
        assert file.refused
        assert file.refused in filled
        return
    assert not file.refused
    if file.field == IMAGE:
        with Image.open(io.BytesIO(file.plain or file.data)) as image:
            assert bytes(filled.data) == image.convert(filled.mode).tobytes()


@pytest.mark.parametrize(
    "name", [name for name, file in FILES.items() if file.field == IMAGE and not file.refused]
)
def test_what_a_worker_opens_with_pillow_is_what_a_fill_reads(name: str) -> None:
    file = FILES[name]

    with Image.open(io.BytesIO(file.plain or file.data)) as image:
        assert field_of("field", image) == _by_origin(file)


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".PKL"])
@pytest.mark.parametrize("name", ["a zip tensor", "a legacy tensor", "a raw tensor", "a dict"])
def test_every_ending_of_a_tensors_file_is_read_alike(
    name: str, suffix: str, tmp_path: Path
) -> None:
    file = replace(FILES[name], suffix=suffix)

    assert _by_put(file, tmp_path) == _by_origin(file)


@pytest.mark.parametrize("suffix", [".npy", ".safetensors"])
def test_put_takes_what_a_refused_object_names_it_for(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"field{suffix}"
    if suffix == ".npy":
        np.save(path, PLAIN.numpy())
    else:
        safetensors.torch.save_file({"field": PLAIN}, path)

    assert f"`cachesvc put` takes {suffix}" in str(
        _by_origin(File(path.read_bytes(), field=TENSOR))
    )
    assert fields_of(field_files.read_fields([str(path)]))["field"].shape == (3, 4)


@pytest.mark.parametrize(
    "name",
    [
        "colour 3 of 4 bits, tRNS",
        "colour 6 of 16 bits, interlaced, too long",
        "colour 0 of 1 bits, interlaced, too short",
        "5 MiB of text",
        "an animation",
        "mode 1",
        "mode I;16",
        "JPEG",
        "an expanded tensor",
        "a file without checksums",
        "a dict",
    ],
)
def test_a_file_goes_both_ways_through_a_daemon(both_ways: BothWays, name: str) -> None:
    file = FILES[name]

    filled, put = both_ways.by_origin(file), both_ways.by_put(file)

    if file.refused:
        assert filled == put
        assert file.refused in str(filled)
        return
    assert isinstance(filled, Entry), filled
    assert isinstance(put, Entry), put
    assert bytes(filled.blob) == bytes(put.blob) == bytes(both_ways.again(filled, file.field).blob)
