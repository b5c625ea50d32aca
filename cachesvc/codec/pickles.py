"""Which tensor is in a `.pkl` object?

An object is a raw `pickle.dumps(tensor.cpu())` stream of any protocol, or a file of
`torch.save` in zip or legacy form. Reading executes nothing: `opcodes.py` has the
opcodes, `torch_views.py` the names, and a raw stream may also name the two functions
that carry its storage's bytes.
"""

from __future__ import annotations

from dataclasses import dataclass

from cachesvc.codec.foreign import foreign_tensor
from cachesvc.codec.long_text import LongText, latin1
from cachesvc.codec.opcodes import Dialect, Function, Value, run
from cachesvc.codec.refusal import pickle_refused
from cachesvc.codec.torch_legacy import MAGIC_NUMBER, read_storage, read_tensor_file
from cachesvc.codec.torch_views import (
    MAX_PICKLED_TENSOR_BYTES,
    TENSOR_FUNCTIONS,
    Storage,
    View,
    checked_view,
    gather,
)
from cachesvc.codec.torch_zip import SIGNATURE, read_zip
from cachesvc.core.errors import OriginDataCorrupt
from cachesvc.core.tensors import DecodePlan, PlanTooSmall
from cachesvc_format.blob import Tensor

# Protocols 1 and 2 write a byte above 0x7F as two bytes; 64 KiB are for the opcodes.
MAX_OBJECT_BYTES = 2 * MAX_PICKLED_TENSOR_BYTES + 64 * 1024


def plan_pickle(data: bytes) -> DecodePlan:
    """Return how much memory reading `data` takes. The size of its tensor is not known yet."""
    # A tensor is copied once if it is not contiguous or is written as text. Only an expanded
    # tensor is larger than its object.
    return DecodePlan(0, 2 * len(data))


def decode_pickle(data: bytes, plan: DecodePlan | None = None) -> Tensor:
    """Return the tensor, contiguous and little-endian; it may share memory with `data`.

    Raises:
        OriginDataCorrupt: reason PICKLE_REFUSED, if `data` is damaged, too large, or
            not one plain tensor.
        PlanTooSmall: if the tensor, which is expanded, takes more memory than `plan` says.
    """
    if len(data) > MAX_OBJECT_BYTES:
        raise pickle_refused(f"it is larger than {MAX_OBJECT_BYTES} bytes: save fewer elements")
    try:
        view = _read(memoryview(data))
    except OriginDataCorrupt as exc:
        raise foreign_tensor(data, exc) from exc
    needed_bytes = len(data) + view.size_bytes
    if plan is not None and needed_bytes > plan.needed_bytes:
        raise PlanTooSmall(DecodePlan(view.size_bytes, needed_bytes))
    return gather(view)


def _read(data: memoryview) -> View:
    if data[:4] == SIGNATURE:
        return read_zip(data)
    value, end = run(data, 0, _RawStream().dialect())
    if value == MAGIC_NUMBER:
        return read_tensor_file(data, end)
    view = checked_view(value)
    if end != len(data):
        raise pickle_refused("it has bytes behind the tensor")
    return view


@dataclass(frozen=True, slots=True)
class _Latin1:
    """Bytes in the text form of protocols 0 to 2, converted only when they are read."""

    text: str | LongText

    def data(self) -> memoryview:
        if isinstance(self.text, LongText):
            return self.text.data()
        return memoryview(latin1(self.text))


@dataclass(slots=True)
class _RawStream:
    """The functions that carry the storage of one raw stream.

    Only one storage: a stream could recall a large text from its memo many times and
    so multiply it.
    """

    has_storage: bool = False

    def dialect(self) -> Dialect:
        return Dialect(
            {
                **TENSOR_FUNCTIONS,
                ("torch.storage", "_load_from_bytes"): Function(self._load_from_bytes),
                ("_codecs", "encode"): Function(_encode),
            }
        )

    def _load_from_bytes(self, arguments: tuple[Value, ...]) -> Storage:
        if self.has_storage:
            raise pickle_refused("it holds more than one tensor: save one of them alone")
        if len(arguments) != 1:
            raise pickle_refused("its storage has the wrong number of parts")
        self.has_storage = True
        payload = arguments[0]
        if isinstance(payload, _Latin1):
            payload = payload.data()
        if not isinstance(payload, memoryview):
            raise pickle_refused("its storage is not bytes")
        return read_storage(payload)


def _encode(arguments: tuple[Value, ...]) -> _Latin1:
    if (
        len(arguments) != 2
        or arguments[1] != "latin1"
        or not isinstance(arguments[0], str | LongText)
    ):
        raise pickle_refused("it encodes text in another way than bytes need")
    return _Latin1(arguments[0])
