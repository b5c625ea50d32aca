"""What may a torch pickle build, and which elements of its storage are in the tensor?

A tensor is a view: offset, sizes and strides, in elements, over one storage. All
of them come from outside, so a view is checked before a byte is read: it lies
inside its storage. Its size is limited by itself, because an expanded tensor is larger
than its storage (a stride of 0 turns 2 bytes into gigabytes).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from cachesvc.codec.opcodes import Function, Value
from cachesvc.codec.refusal import pickle_refused
from cachesvc_format.blob import ITEM_BYTES, MAX_DIMENSIONS, Tensor

# The largest real tensor has 4.7 MB; a float32 video latent has about 100 MB.
MAX_PICKLED_TENSOR_BYTES = 256 * 1024 * 1024

_STORAGE_KEY = re.compile(r"[0-9]{1,20}")
_STORAGE_DTYPES = {
    "BoolStorage": "BOOL",
    "ByteStorage": "U8",
    "CharStorage": "I8",
    "ShortStorage": "I16",
    "IntStorage": "I32",
    "LongStorage": "I64",
    "HalfStorage": "F16",
    "BFloat16Storage": "BF16",
    "FloatStorage": "F32",
    "DoubleStorage": "F64",
}
STORAGE_NAMES = {dtype: name for name, dtype in _STORAGE_DTYPES.items()}


@dataclass(frozen=True, slots=True)
class StorageClass:
    """The value of the global `torch.HalfStorage` and of its siblings."""

    dtype: str


@dataclass(frozen=True, slots=True)
class Storage:
    """`count` elements of one dtype. `data` is None until its bytes are found in the file."""

    dtype: str
    count: int
    key: str
    data: memoryview | None = None

    @property
    def size_bytes(self) -> int:
        return self.count * ITEM_BYTES[self.dtype]


@dataclass(frozen=True, slots=True)
class View:
    """A tensor before its bytes are gathered; offset and strides in elements, checked."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @property
    def size_bytes(self) -> int:
        """Return the size of the gathered tensor."""
        return math.prod(self.shape) * ITEM_BYTES[self.storage.dtype]


@dataclass(frozen=True, slots=True)
class _NoHooks:
    """An empty OrderedDict. Not a dict, so that no opcode can put a hook into it.

    torch 0.4 writes None instead.
    """


STORAGE_CLASSES: Mapping[tuple[str, str], Value] = {
    ("torch", name): StorageClass(dtype) for name, dtype in _STORAGE_DTYPES.items()
}


BIG_ENDIAN = "its elements are big-endian: save it on a little-endian machine"
# What else a stream may hold; bool is before int, which it is one of.
_NO_TENSORS: tuple[tuple[type, str], ...] = (
    (dict, "a dict"),
    (list, "a list"),
    (tuple, "a tuple"),
    (bool, "a bool"),
    (int, "a number"),
    (str, "text"),
    (memoryview, "bytes"),
    (type(None), "None"),
    (Storage, "a storage"),
    (_NoHooks, "an empty OrderedDict"),
)


def parse_storage_id(parts: tuple[Value, ...]) -> Storage:
    """Return the storage that `("storage", class, key, location, count)` names.

    The location (`cpu`, `cuda:0`) does not matter: the bytes are in the object.
    """
    assert len(parts) == 5
    word, storage_class, key, location, count = parts
    if word != "storage" or not isinstance(storage_class, StorageClass):
        raise pickle_refused("a persistent id is not that of a storage")
    if not (isinstance(key, str) and _STORAGE_KEY.fullmatch(key) and isinstance(location, str)):
        raise pickle_refused("a storage's key is not a number, or its location is not text")
    checked = _checked_number(count, "a storage's count")
    if checked * ITEM_BYTES[storage_class.dtype] > MAX_PICKLED_TENSOR_BYTES:
        raise pickle_refused(
            f"a storage is larger than {MAX_PICKLED_TENSOR_BYTES} bytes: save tensor.clone()"
        )
    return Storage(storage_class.dtype, checked, key)


def checked_view(value: Value) -> View:
    """Return the value of a stream, which should be one tensor."""
    if isinstance(value, View):
        return value
    found = next((name for type_, name in _NO_TENSORS if isinstance(value, type_)), "no tensor")
    raise pickle_refused(f"it is {found}, not one tensor: save one tensor alone")


def gather(view: View) -> Tensor:
    """Return the tensor, contiguous; if it was contiguous, possibly a view of the object."""
    storage = view.storage
    assert storage.data is not None
    assert len(storage.data) == storage.size_bytes
    item_bytes = ITEM_BYTES[storage.dtype]
    count = math.prod(view.shape)
    if _is_contiguous(view):
        start = view.offset * item_bytes if count else 0
        part = storage.data[start : start + count * item_bytes]
        # Copy a small part of a batch: a view would hold the whole batch until L2 has the entry.
        is_most = len(part) * 2 >= len(storage.data)
        return Tensor(storage.dtype, view.shape, part if is_most else bytes(part))
    # Copy as unsigned integers of the same width: numpy has no bfloat16, and no value changes.
    words = np.frombuffer(storage.data, np.dtype(f"<u{item_bytes}"))[view.offset :]
    # The stride of a dimension of size 1 is never used and may be any number.
    strides = (0 if n == 1 else s for n, s in zip(view.shape, view.strides, strict=True))
    strided = np.lib.stride_tricks.as_strided(
        words, view.shape, tuple(s * item_bytes for s in strides), writeable=False
    )
    gathered = np.ascontiguousarray(strided).reshape(-1).view(np.uint8)
    return Tensor(storage.dtype, view.shape, gathered.data)


def _is_contiguous(view: View) -> bool:
    if 0 in view.shape:
        return True
    expected = 1
    for size, stride in zip(reversed(view.shape), reversed(view.strides), strict=True):
        if size != 1 and stride != expected:
            return False
        expected *= size
    return True


def _checked_number(value: Value, what: str) -> int:
    # `type() is`, because True is an int to isinstance.
    if type(value) is not int or not 0 <= value < 2**63:
        raise pickle_refused(f"{what} is not a number from 0 to 2**63 - 1")
    return value


def _checked_numbers(values: Value, what: str) -> tuple[int, ...]:
    if not isinstance(values, tuple) or len(values) > MAX_DIMENSIONS:
        raise pickle_refused(f"{what} are not a tuple of at most {MAX_DIMENSIONS}")
    return tuple(_checked_number(value, f"one of {what}") for value in values)


def _check_inside(view: View) -> None:
    storage, shape = view.storage, view.shape
    if len(view.strides) != len(shape):
        raise pickle_refused("a tensor has not one stride per dimension")
    # An empty tensor's other dimensions count too: (0, 2**40) would overflow readers.
    if math.prod(max(size, 1) for size in shape) * ITEM_BYTES[storage.dtype] > (
        MAX_PICKLED_TENSOR_BYTES
    ):
        raise pickle_refused(
            f"a tensor is larger than {MAX_PICKLED_TENSOR_BYTES} bytes: save fewer elements"
        )
    count = math.prod(shape)
    last = view.offset
    if count:
        last += sum((n - 1) * stride for n, stride in zip(shape, view.strides, strict=True))
    if last + bool(count) > storage.count:
        raise pickle_refused("a tensor reaches outside of its storage")


def _rebuild_tensor(arguments: tuple[Value, ...]) -> View:
    if len(arguments) == 7 and arguments[6] not in (None, {}):
        # It holds a conjugate or negative bit, which changes the values.
        raise pickle_refused(
            "a tensor's values are changed by a flag: save tensor.resolve_neg().resolve_conj()"
        )
    if len(arguments) not in (6, 7):
        raise pickle_refused("a tensor has the wrong number of parts")
    storage, offset, shape, strides, requires_grad, hooks = arguments[:6]
    if not isinstance(storage, Storage):
        raise pickle_refused("a tensor's storage is another value")
    _check_grad(requires_grad, hooks)
    view = View(
        storage,
        _checked_number(offset, "a tensor's offset"),
        _checked_numbers(shape, "a tensor's sizes"),
        _checked_numbers(strides, "a tensor's strides"),
    )
    _check_inside(view)
    return view


def _rebuild_old_tensor(arguments: tuple[Value, ...]) -> View:
    """Return a tensor of torch before 0.4."""
    if len(arguments) != 4:
        raise pickle_refused("a tensor has the wrong number of parts")
    return _rebuild_tensor((*arguments, False, None))


def _size(arguments: tuple[Value, ...]) -> tuple[Value, ...]:
    """Return the numbers of a `torch.Size`, which torch before 0.4 writes."""
    if len(arguments) != 1 or not isinstance(arguments[0], tuple):
        raise pickle_refused("a tensor's sizes are not a tuple")
    return arguments[0]


def _rebuild_parameter(arguments: tuple[Value, ...]) -> View:
    if len(arguments) != 3:
        raise pickle_refused("a parameter has the wrong number of parts")
    view, requires_grad, hooks = arguments
    if not isinstance(view, View):
        raise pickle_refused("a parameter's tensor is another value")
    _check_grad(requires_grad, hooks)
    return view


def _check_grad(requires_grad: Value, hooks: Value) -> None:
    if not isinstance(requires_grad, bool):
        raise pickle_refused("a tensor's requires_grad is not a bool")
    if hooks is not None and not isinstance(hooks, _NoHooks):
        raise pickle_refused("a tensor has hooks: save tensor.detach()")


def _no_hooks(arguments: tuple[Value, ...]) -> _NoHooks:
    if arguments:
        raise pickle_refused("an OrderedDict is not empty: save one tensor alone")
    return _NoHooks()


TENSOR_FUNCTIONS: Mapping[tuple[str, str], Value] = {
    ("torch._utils", "_rebuild_tensor_v2"): Function(_rebuild_tensor),
    ("torch._utils", "_rebuild_tensor"): Function(_rebuild_old_tensor),
    ("torch", "Size"): Function(_size),
    ("torch._utils", "_rebuild_parameter"): Function(_rebuild_parameter),
    ("collections", "OrderedDict"): Function(_no_hooks),
}
