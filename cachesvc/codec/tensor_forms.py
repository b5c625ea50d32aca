"""In which form does `persist` write a tensor's object?

In the form of the object that it replaces, because that object's other readers read one form only:
`pickle.load` reads no file of `torch.save`, and `torch.load` no raw pickle. If there is no object,
or one of a foreign format: a file of `torch.save` under a key that ends in `.pt` or `.pth`,
otherwise a raw pickle, as V2 wrote and reads.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import PurePosixPath

from cachesvc.codec.pickle_writer import encode_legacy_file, encode_pickle
from cachesvc.codec.torch_zip_writer import encode_zip_file
from cachesvc.core.tensors import Buffer
from cachesvc_format.blob import Tensor
from cachesvc_format.foreign import ZIP_SIGNATURE, Family, begins_with_torch_magic, name_of

_TORCH_ENDINGS = (".pt", ".pth")
# Its first pickle, of protocol 0 or 1: the magic number in text.
_TEXT_MAGIC = b"L119547037146038801333356L\n."


def writer_for(start: Buffer, object_key: str) -> Callable[[Tensor], bytes]:
    """Return the writer of an object that replaces one beginning with `start`, empty if absent."""
    head = bytes(start)
    found = name_of(head)
    if begins_with_torch_magic(head) or head.startswith(_TEXT_MAGIC):
        return encode_legacy_file
    if found is not None and found.family is Family.TORCH:
        return encode_zip_file if head.startswith(ZIP_SIGNATURE) else encode_pickle
    is_torchs = PurePosixPath(object_key).suffix in _TORCH_ENDINGS
    return encode_zip_file if is_torchs else encode_pickle
