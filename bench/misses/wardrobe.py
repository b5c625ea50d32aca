"""The objects of one try-on, of the real sizes, and V2's handling of them, reproduced.

V2 read one object after the other, decoded it by Pillow or pickle, and saved the decoded values
before it answered: PNGs with `optimize=True`, and pickles.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

from PIL import Image

from examples.demo import sample_data

USER = sample_data.USER
GARMENT = sample_data.GARMENTS[0]
# As many as there are objects.
OBJECT_COUNT = 11
Objects = dict[str, bytes]
Read = Callable[[str], bytes]


def make(folder: Path) -> Objects:
    """Return the origin's objects of one try-on, by object key."""
    sample_data.write_origin(folder)
    prefix = folder / "users" / USER / "vton-cache"
    paths = [
        *sorted((prefix / "upper").iterdir()),
        *sorted((prefix / "garments").glob(f"{GARMENT}_*")),
        *sorted((prefix / "text").glob(f"{GARMENT}_*")),
    ]
    assert len(paths) == OBJECT_COUNT
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def decode(key: str, data: bytes) -> Any:
    """Decode as V2 did. Only for objects that this benchmark has made."""
    if not key.endswith(".png"):
        return pickle.loads(data)
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


def decode_all(objects: Mapping[str, bytes]) -> list[Any]:
    return [decode(key, data) for key, data in objects.items()]


def read_in_parallel(objects: Mapping[str, bytes], read: Read, threads: Executor) -> list[bytes]:
    return list(threads.map(read, objects))


def read_and_decode_in_parallel(
    objects: Mapping[str, bytes], read: Read, threads: Executor
) -> list[Any]:
    """Read and decode all objects in a pool of threads, one object in each."""
    return list(threads.map(lambda key: decode(key, read(key)), objects))


def v2_cold_path(objects: Mapping[str, bytes], read: Read, folder: Path) -> dict[str, Any]:
    """V2's whole miss: read and decode one after the other, then save, then answer."""
    values = {key: decode(key, read(key)) for key in objects}
    for key, value in values.items():
        v2_save(folder / Path(key).name, value)
    return values


def v2_save(path: Path, value: Any) -> None:
    if isinstance(value, Image.Image):
        value.save(path, optimize=True)
    else:
        with path.open("wb") as file:
            pickle.dump(value, file)


def v2_read_person(folder: Path) -> list[Any]:
    """V2's L2 hit: three images and one pickle from its own folder."""
    values: list[Any] = []
    for name in ("human_img.png", "mask.png", "mask_gray.png"):
        image = Image.open(folder / name)
        image.load()
        values.append(image)
    with (folder / "pose_tensor.pkl").open("rb") as file:
        values.append(pickle.load(file))
    return values
