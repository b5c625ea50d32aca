"""How does an entry's member at the origin become a tensor, and a tensor a member?

The engine is handed this module: `plan_member`, `decode_member`, `blob_parts`,
`check_parts` and `encode_members`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from cachesvc.codec.blob import blob_parts, check_blob
from cachesvc.codec.images import decode_png, encode_png, plan_png
from cachesvc.codec.pickles import decode_pickle, plan_pickle
from cachesvc.codec.tensor_forms import encoded
from cachesvc.core.kinds import Encoding, Field, Kind
from cachesvc.core.parts_file import PartsFile
from cachesvc.core.tensors import Buffer, DecodePlan
from cachesvc_format.blob import MAX_HEAD_BYTES, BlobLayout, Tensor

__all__ = ["blob_parts", "check_parts", "decode_member", "encode_members", "plan_member"]

_PLANNERS = {Encoding.PNG: plan_png, Encoding.PICKLE: plan_pickle}
_NOTHING_THERE: Mapping[str, bytes] = MappingProxyType({})


def plan_member(field: Field, data: bytes) -> DecodePlan:
    """Return what the header of `data` says. Decodes nothing, and takes microseconds.

    Raises:
        OriginDataCorrupt: reason PICKLE_REFUSED or IMAGE_REFUSED.
    """
    return _PLANNERS[field.encoding](data)


def decode_member(field: Field, data: bytes, plan: DecodePlan | None = None) -> Tensor:
    """Return what the origin's object `data` holds; it may share memory with `data`.

    Raises:
        OriginDataCorrupt: reason PICKLE_REFUSED or IMAGE_REFUSED. Nothing was executed.
        PlanTooSmall: if it takes more memory than `plan` says.
    """
    if field.encoding is Encoding.PNG:
        return decode_png(data)
    return decode_pickle(data, plan)


def check_parts(kind: Kind, parts: Sequence[Buffer]) -> BlobLayout:
    """Check a blob in several buffers, as `check_blob` does. Only the header is joined."""
    head = PartsFile(parts).read(MAX_HEAD_BYTES)
    return check_blob(kind, head, sum(memoryview(part).nbytes for part in parts))


def encode_members(
    kind: Kind, blob: Buffer, starts: Mapping[str, bytes] = _NOTHING_THERE
) -> dict[str, Buffer]:
    """Return each field's object: a PNG, or a pickle in the form of the object that it replaces.

    `starts` has the first START_BYTES of the objects that are there now, by the field's name.

    Raises:
        InvalidRequest: if `blob` is not an entry of `kind`, or a tensor is too large.
    """
    layout = check_blob(kind, blob)
    view = memoryview(blob).cast("B")
    members: dict[str, Buffer] = {}
    for field in kind.fields:
        found = layout.fields[field.name]
        pixels_or_words = view[found.begin : found.end]
        tensor = Tensor(found.dtype, found.shape, pixels_or_words, found.mode)
        if field.encoding is Encoding.PNG:
            members[field.name] = encode_png(tensor)
        else:
            start = starts.get(field.name, b"")
            members[field.name] = encoded(tensor, start, field.template)
    return members
