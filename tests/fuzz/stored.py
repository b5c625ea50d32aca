"""Parsers of the origin's objects and of a Put's bytes: blobs, pickles, images.

A checksum would keep a fuzzer from the code behind it: `torch_zip_stream` and `png_chunks` add the
right checksums to their input.
"""

from __future__ import annotations

import io
import os
import struct
import zipfile
import zlib

from cachesvc.codec.blob import parse_layout
from cachesvc.codec.images import decode_png
from cachesvc.codec.pickles import decode_pickle, plan_pickle
from cachesvc.codec.tensor_forms import encoded
from cachesvc.codec.torch_views import MAX_PICKLED_TENSOR_BYTES
from cachesvc.core.errors import InvalidRequest, OriginDataCorrupt
from cachesvc.core.tensors import PlanTooSmall
from cachesvc_client import _blob
from cachesvc_format.blob import ITEM_BYTES, BlobError, Tensor
from cachesvc_format.foreign import name_of
from tests.fuzz.parser import Parser

MAX_OBJECT_BYTES = 16 * 1024
# A name is part of an error's one line.
MAX_NAME_CHARS = 120
_PNG_SIGNATURE_BYTES = 8
# The data of the tensor in the archive into which `torch_zip_stream` puts its input.
ZIP_ELEMENTS = bytes(range(12))


def _read_pickle(data: bytes) -> None:
    plan = plan_pickle(data)
    try:
        tensor = decode_pickle(data, plan)
    except PlanTooSmall as exc:
        plan = exc.plan
    else:
        assert tensor.size_bytes == len(tensor.data) <= len(data)
        return
    # Only an expanded tensor has more elements than its object; the daemon then plans anew.
    assert len(data) < plan.size_bytes <= MAX_PICKLED_TENSOR_BYTES


def _read_zip_stream(data: bytes) -> None:
    _read_pickle(archived(data))


def archived(stream: bytes) -> bytes:
    """Return an archive of torch with this stream, and with right checksums."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a/data.pkl", stream)
        archive.writestr("a/data/7", ZIP_ELEMENTS)
    return file.getvalue()


def _read_png(data: bytes) -> None:
    image = decode_png(data)
    assert image.dtype == "U8"
    assert image.size_bytes == len(image.data)


def _read_png_chunks(data: bytes) -> None:
    _read_png(with_right_checksums(data))


def with_right_checksums(data: bytes) -> bytes:
    """Return the PNG with the right checksum in each whole chunk."""
    out, at = bytearray(data), _PNG_SIGNATURE_BYTES
    while at + 12 <= len(out):
        end = at + 8 + int.from_bytes(out[at : at + 4], "big")
        if end + 4 <= len(out):
            out[end : end + 4] = struct.pack(">I", zlib.crc32(out[at + 4 : end]))
        at = end + 4
    return bytes(out)


def _read_blob(data: bytes) -> None:
    fields = parse_layout(data).fields
    for field in fields.values():
        assert 0 <= field.begin <= field.end <= len(data)
        assert field.begin % ITEM_BYTES[field.dtype] == 0
    # The client reads every blob that the daemon stores, with the same fields at the same places.
    assert fields == dict(_blob.read_layout(memoryview(data)))


def _read_client_blob(data: bytes) -> None:
    fd = os.memfd_create("blob")
    try:
        os.write(fd, data)
        of_file = _blob.read_layout_of_file(fd, len(data))
    finally:
        os.close(fd)
    assert dict(of_file) == dict(_blob.read_layout(memoryview(data)))
    for field in of_file.values():
        assert 0 <= field.begin <= field.end <= len(data)


def _name(data: bytes) -> None:
    found = name_of(data)
    if found is not None:
        assert found.name.isascii()
        assert found.name.isprintable()
        assert len(found.name) < MAX_NAME_CHARS
    assert encoded(Tensor("U8", (1,), b"x"), data, "a.pkl")


PARSERS = (
    Parser("foreign", _name, ()),
    Parser("blob", _read_blob, (InvalidRequest,)),
    Parser("client_blob", _read_client_blob, (BlobError,)),
    Parser("pickle", _read_pickle, (OriginDataCorrupt,), MAX_OBJECT_BYTES),
    Parser("torch_legacy", _read_pickle, (OriginDataCorrupt,), MAX_OBJECT_BYTES),
    Parser("torch_zip", _read_pickle, (OriginDataCorrupt,), MAX_OBJECT_BYTES),
    Parser("torch_zip_stream", _read_zip_stream, (OriginDataCorrupt,)),
    Parser("png", _read_png, (OriginDataCorrupt,), MAX_OBJECT_BYTES),
    Parser("png_chunks", _read_png_chunks, (OriginDataCorrupt,), MAX_OBJECT_BYTES),
)
