"""In which form does `persist` write a tensor's object?

In the form of the object that it replaces, because that object's other readers read one form only:
`pickle.load` reads no file of `torch.save`, and `torch.load` no raw pickle. If there is no object,
or one of a foreign format: a file of `torch.save` under a key that ends in `.pt` or `.pth`,
otherwise a raw pickle, as V2 wrote and reads.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import PurePosixPath

from cachesvc.codec.pickle_writer import legacy_file_parts, pickle_parts
from cachesvc.codec.torch_zip_writer import zip_file_parts
from cachesvc.core.buffers import joined
from cachesvc.core.tensors import Buffer
from cachesvc_format.blob import Tensor
from cachesvc_format.foreign import ZIP_SIGNATURE, Family, begins_with_torch_magic, name_of

_TORCH_ENDINGS = (".pt", ".pth")
# Its first pickle, of protocol 0 or 1: the magic number in text.
_TEXT_MAGIC = b"L119547037146038801333356L\n."


def encoded(tensor: Tensor, start: Buffer, object_key: str) -> Buffer:
    """Return the object that replaces one beginning with `start`, empty if there is none.

    Raises:
        InvalidRequest: reason TENSOR_TOO_LARGE.
    """
    return joined(_parts_writer(start, object_key)(tensor))


def _parts_writer(start: Buffer, object_key: str) -> Callable[[Tensor], list[Buffer]]:
    head = bytes(start)
    found = name_of(head)
    if begins_with_torch_magic(head) or head.startswith(_TEXT_MAGIC):
        return legacy_file_parts
    if found is not None and found.family is Family.TORCH:
        return zip_file_parts if head.startswith(ZIP_SIGNATURE) else pickle_parts
    is_torchs = PurePosixPath(object_key).suffix in _TORCH_ENDINGS
    return zip_file_parts if is_torchs else pickle_parts
