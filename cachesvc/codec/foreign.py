"""How is an object of a foreign format refused, and which way takes it?

`cachesvc_format.foreign` names what the bytes are.
"""

from __future__ import annotations

from collections.abc import Mapping

from cachesvc.codec.opcodes import may_begin_with
from cachesvc.codec.refusal import image_refused, pickle_refused
from cachesvc.core.errors import OriginDataCorrupt
from cachesvc.core.tensors import Buffer
from cachesvc_format.foreign import PNG_SIGNATURE, Family, Found, begins_with, name_of

_READS_PNG = "this field reads PNG"
_READS_TENSOR = "this field reads one tensor of pickle.dumps or torch.save"

_OF_BOTH = {
    Family.PACKED: "store it unpacked",
    Family.POINTER: "store the file that it stands for",
    Family.ANSWER: "it may be the answer to a failed download; store the file itself",
    Family.CHANGED: "store the file again, byte for byte",
}
_WAY_OF_IMAGE = {
    **_OF_BOTH,
    Family.IMAGE: "save it as PNG, or Put the image that Pillow opens",
    Family.OTHER: "store the image itself, as PNG",
    **dict.fromkeys(
        (Family.TORCH, Family.ARRAY, Family.SAFETENSORS),
        "a tensor lies where an image belongs; store the image there, as PNG",
    ),
}
_WAY_OF_TENSOR = {
    **_OF_BOTH,
    **dict.fromkeys(
        (Family.PNG, Family.IMAGE),
        "an image lies where a tensor belongs; store the tensor there",
    ),
    Family.OTHER: "store the tensor itself, with torch.save",
    Family.ARRAY: "`cachesvc put` takes .npy; for the origin, torch.save(torch.from_numpy(array))",
    Family.SAFETENSORS: "`cachesvc put` takes .safetensors; for the origin, torch.save one tensor",
}


def foreign_image(data: Buffer) -> OriginDataCorrupt:
    """Return the error for data without a PNG's signature."""
    if PNG_SIGNATURE.startswith(data[: len(PNG_SIGNATURE)]) and len(data):
        return image_refused("it is cut short: it ends within a PNG's signature")
    found = name_of(data)
    if found is not None:
        return image_refused(_text(found, _READS_PNG, _WAY_OF_IMAGE))
    return image_refused(f"it is no PNG, and nothing known: it begins with {begins_with(data)}")


def foreign_tensor(data: Buffer, refusal: OriginDataCorrupt) -> OriginDataCorrupt:
    """Return the error for data that was refused with `refusal`: the same if it is a pickle."""
    found = name_of(data)
    if found is None and not may_begin_with(data[0]):
        start = begins_with(data)
        return pickle_refused(f"it is no pickle, and nothing known: it begins with {start}")
    if found is None or found.family is Family.TORCH:
        return refusal
    return pickle_refused(_text(found, _READS_TENSOR, _WAY_OF_TENSOR))


def _text(found: Found, reads: str, ways: Mapping[Family, str]) -> str:
    return f"it is {found.name}, and {reads}: {ways[found.family]}"
