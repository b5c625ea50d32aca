"""How is a tensor written as a pickle, so that `pickle.load` or `torch.load` reads it?

A raw stream is that of `pickle.dumps(tensor)`, without the memo and with a fixed storage key
instead of torch's memory address, so that equal tensors make equal bytes. The storage inside has
torch's legacy file form (`torch_legacy.py`), which a legacy file of `torch.save` has as a whole.
"""

from __future__ import annotations

import math
import struct

from cachesvc.codec.torch_legacy import MAGIC_NUMBER, PROTOCOL_VERSION
from cachesvc.codec.torch_views import MAX_PICKLED_TENSOR_BYTES, STORAGE_NAMES
from cachesvc.core.errors import InvalidRequest
from cachesvc.core.tensors import Buffer
from cachesvc_format.blob import Tensor

PROTO_2 = b"\x80\x02"
_PROTO_4 = b"\x80\x04"
_MARK, _TUPLE, _REDUCE, STOP = b"(", b"t", b"R", b"."
_TRUE, _FALSE, _NONE = b"\x88", b"\x89", b"N"
_PERSISTENT_ID = b"Q"
STORAGE_KEY = "0"


def encode_pickle(tensor: Tensor) -> bytes:
    """Return the stream of `pickle.dumps` (protocol 4), the same bytes for the same tensor.

    Raises as `pickle_parts`.
    """
    return b"".join(pickle_parts(tensor))


def pickle_parts(tensor: Tensor) -> list[Buffer]:
    """Return the same stream in parts; the tensor's data is not copied.

    Raises:
        InvalidRequest: reason TENSOR_TOO_LARGE, if `decode_pickle` would refuse it.
    """
    check_size(tensor)
    storage = storage_id(tensor, is_legacy=True)
    payload_head = _legacy_head(tensor, storage)
    head = b"".join(
        (
            _PROTO_4,
            _stack_global("torch._utils", "_rebuild_tensor_v2"),
            _MARK,
            _stack_global("torch.storage", "_load_from_bytes"),
            b"B" + struct.pack("<I", len(payload_head) + tensor.size_bytes),
        )
    )
    tail = b"".join(
        (
            b"\x85",  # TUPLE1: the payload
            _REDUCE,
            _view(tensor),
            _stack_global("collections", "OrderedDict"),
            b")",
            _REDUCE,
            _TUPLE,
            _REDUCE,
            STOP,
        )
    )
    return [head, payload_head, tensor.data, tail]


def legacy_file_parts(tensor: Tensor) -> list[Buffer]:
    """Return a file of `torch.save` in its legacy form, in parts. Raises as `pickle_parts`."""
    check_size(tensor)
    head = _legacy_head(tensor, rebuilt(tensor, storage_id(tensor, is_legacy=True)))
    return [head, tensor.data]


def check_size(tensor: Tensor) -> None:
    """Raise InvalidRequest, reason TENSOR_TOO_LARGE, if no reader here would take it."""
    if tensor.size_bytes > MAX_PICKLED_TENSOR_BYTES:
        raise InvalidRequest(
            f"a tensor is larger than {MAX_PICKLED_TENSOR_BYTES} bytes", reason="TENSOR_TOO_LARGE"
        )


def rebuilt(tensor: Tensor, storage: bytes) -> bytes:
    """Return the opcodes of a tensor over `storage`, for a stream of protocol 2."""
    return b"".join(
        (
            _global("torch._utils", "_rebuild_tensor_v2"),
            _MARK,
            storage,
            _view(tensor),
            _global("collections", "OrderedDict"),
            b")",
            _REDUCE,
            _TUPLE,
            _REDUCE,
        )
    )


def storage_id(tensor: Tensor, *, is_legacy: bool) -> bytes:
    """Return the opcodes of the tensor's storage: a persistent id."""
    parts = (
        _MARK,
        _text("storage"),
        _global("torch", STORAGE_NAMES[tensor.dtype]),
        _text(STORAGE_KEY),
        _text("cpu"),
        _number(math.prod(tensor.shape)),
        # A legacy id also names the storage of which this one is a view.
        _NONE if is_legacy else b"",
        _TUPLE,
        _PERSISTENT_ID,
    )
    return b"".join(parts)


def _view(tensor: Tensor) -> bytes:
    """Return offset, sizes, strides and requires_grad."""
    strides = _strides(tensor.shape)
    return b"".join((_number(0), _numbers(tensor.shape), _numbers(strides), _FALSE))


def _legacy_head(tensor: Tensor, value: bytes) -> bytes:
    """Return the streams of a legacy file and its count. The caller appends the elements."""
    type_sizes = _dict(("short", _number(2)), ("int", _number(4)), ("long", _number(4)))
    facts = _dict(
        ("protocol_version", _number(PROTOCOL_VERSION)),
        ("little_endian", _TRUE),
        ("type_sizes", type_sizes),
    )
    streams = (
        _number(MAGIC_NUMBER),
        _number(PROTOCOL_VERSION),
        facts,
        value,
        b"]" + _text(STORAGE_KEY) + b"a",
    )
    count = struct.pack("<q", math.prod(tensor.shape))
    return b"".join(PROTO_2 + stream + STOP for stream in streams) + count


def _strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    strides, step = [], 1
    for size in reversed(shape):
        strides.append(step)
        step *= max(size, 1)
    return tuple(reversed(strides))


def _number(value: int) -> bytes:
    if 0 <= value < 2**8:
        return b"K" + bytes((value,))
    if 0 <= value < 2**16:
        return b"M" + struct.pack("<H", value)
    if 0 <= value < 2**31:
        return b"J" + struct.pack("<i", value)
    size_bytes = value.bit_length() // 8 + 1
    return b"\x8a" + bytes((size_bytes,)) + value.to_bytes(size_bytes, "little", signed=True)


def _numbers(values: tuple[int, ...]) -> bytes:
    return _MARK + b"".join(map(_number, values)) + _TUPLE


def _text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode("ascii")


def _short_text(value: str) -> bytes:
    return b"\x8c" + bytes((len(value),)) + value.encode("ascii")


def _global(module: str, name: str) -> bytes:
    return f"c{module}\n{name}\n".encode("ascii")


def _stack_global(module: str, name: str) -> bytes:
    return _short_text(module) + _short_text(name) + b"\x93"


def _dict(*items: tuple[str, bytes]) -> bytes:
    return b"}" + _MARK + b"".join(_text(key) + value for key, value in items) + b"u"
