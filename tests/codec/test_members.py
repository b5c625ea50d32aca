"""Does an entry come from the origin's objects and go back to them unchanged?"""

from __future__ import annotations

import io
import pickle

import numpy as np
import pytest
import torch
from PIL import Image

from cachesvc.codec import members
from cachesvc.codec.blob import build_blob
from cachesvc.core.errors import InvalidRequest, OriginDataCorrupt
from cachesvc.core.kinds import GARMENT, HUMAN, TEXT, Encoding, Field, Kind


def _png(mode: str, width: int, height: int) -> bytes:
    pixels = np.random.default_rng(width).integers(0, 256, (height, width, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(out, format="PNG")
    return out.getvalue()


def _objects(kind: Kind) -> dict[str, bytes]:
    objects = {
        "human_img": _png("RGB", 48, 64),
        "mask": _png("L", 48, 64),
        "mask_gray": _png("L", 24, 32),
        "garm_img": _png("RGB", 48, 64),
    }
    tensor = torch.randn(1, 3, 64, 48).half()
    return {name: objects.get(name) or pickle.dumps(tensor) for name in kind.field_names}


def _blob(kind: Kind, objects: dict[str, bytes]) -> bytes:
    return build_blob(
        {field.name: members.decode_member(field, objects[field.name]) for field in kind.fields}
    )


@pytest.mark.parametrize("kind", [HUMAN, GARMENT, TEXT], ids=lambda kind: kind.name)
def test_objects_that_are_written_back_hold_what_was_read(kind: Kind) -> None:
    objects = _objects(kind)
    blob = _blob(kind, objects)

    written = members.encode_members(kind, blob)

    assert tuple(written) == kind.field_names
    assert _blob(kind, written) == blob
    for field in kind.fields:
        if field.encoding is Encoding.PICKLE:
            assert torch.equal(pickle.loads(written[field.name]), pickle.loads(objects[field.name]))
        else:
            with (
                Image.open(io.BytesIO(written[field.name])) as new,
                Image.open(io.BytesIO(objects[field.name])) as old,
            ):
                assert (new.mode, new.size) == (old.mode, old.size)
                assert new.tobytes() == old.tobytes()


def test_members_are_written_from_a_mapped_blob_too() -> None:
    blob = _blob(HUMAN, _objects(HUMAN))

    assert members.encode_members(HUMAN, memoryview(blob)) == members.encode_members(HUMAN, blob)


def test_a_blob_of_another_kind_is_not_written_back() -> None:
    with pytest.raises(InvalidRequest) as raised:
        members.encode_members(HUMAN, _blob(GARMENT, _objects(GARMENT)))
    assert raised.value.reason == "WRONG_FIELDS"


@pytest.mark.parametrize("field", HUMAN.fields, ids=lambda field: field.name)
def test_an_object_of_the_other_encoding_is_refused(field: Field) -> None:
    other = pickle.dumps(torch.ones(1)) if field.encoding is Encoding.PNG else _png("L", 2, 2)

    with pytest.raises(OriginDataCorrupt):
        members.decode_member(field, other)
