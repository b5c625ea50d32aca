"""How is torch's legacy file form read? Every raw pickle also contains this form.

Such a file has five pickle streams (a magic number, 1001, facts about the machine,
the object, the keys of its storages), then for each storage an int64 count and the
elements. The object is a tensor in a file of `torch.save`, and a bare
storage in the bytes inside `pickle.dumps(tensor)`.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, replace

from cachesvc.codec.opcodes import Dialect, Value, run
from cachesvc.codec.refusal import pickle_refused
from cachesvc.codec.torch_views import (
    BIG_ENDIAN,
    STORAGE_CLASSES,
    TENSOR_FUNCTIONS,
    Storage,
    View,
    checked_view,
    parse_storage_id,
)

MAGIC_NUMBER = 0x1950A86A20F9469CFC6C
PROTOCOL_VERSION = 1001

_COUNT = struct.Struct("<q")
_PLAIN = Dialect(names={})


@dataclass(slots=True)
class OneStorage:
    """Turns the persistent id of a stream into its storage; a tensor has exactly one storage.

    `id_length` differs between the file forms: a legacy id ends with a view, which is None.
    """

    id_length: int
    storage: Storage | None = None

    def load(self, identity: Value) -> Storage:
        if not isinstance(identity, tuple) or len(identity) != self.id_length:
            raise pickle_refused("a persistent id is not that of a storage")
        if self.storage is not None:
            raise pickle_refused("it holds more than one tensor: save one of them alone")
        if any(part is not None for part in identity[5:]):
            raise pickle_refused("its storage is a view of another")
        self.storage = parse_storage_id(identity[:5])
        return self.storage


def read_tensor_file(data: memoryview, after_magic: int) -> View:
    """Return the tensor of a legacy file whose first stream ends at `after_magic`."""
    value, storage = _read(data, after_magic, {**STORAGE_CLASSES, **TENSOR_FUNCTIONS})
    return replace(checked_view(value), storage=storage)


def read_storage(data: memoryview) -> Storage:
    """Return the storage that `torch.storage._load_from_bytes` would return."""
    magic, at = run(data, 0, _PLAIN)
    if magic != MAGIC_NUMBER:
        raise pickle_refused("its storage does not start with torch's magic number")
    value, storage = _read(data, at, STORAGE_CLASSES)
    if not isinstance(value, Storage):
        raise pickle_refused("its storage is another value")
    return storage


def _read(
    data: memoryview, at: int, names: Mapping[tuple[str, str], Value]
) -> tuple[Value, Storage]:
    version, at = run(data, at, _PLAIN)
    if version != PROTOCOL_VERSION:
        raise pickle_refused("its file version is unknown")
    machine_facts, at = run(data, at, _PLAIN)
    if not (isinstance(machine_facts, dict) and machine_facts.get("little_endian") is True):
        raise pickle_refused(BIG_ENDIAN)
    holder = OneStorage(id_length=6)
    value, at = run(data, at, Dialect(names, holder.load))
    if holder.storage is None:
        checked_view(value)
    keys, at = run(data, at, _PLAIN)
    if holder.storage is None or not _is_only(keys, holder.storage.key):
        raise pickle_refused("it does not have exactly one storage")
    return value, replace(holder.storage, data=_elements(data, at, holder.storage))


def _is_only(keys: Value, key: str) -> bool:
    return isinstance(keys, list) and len(keys) == 1 and keys[0] == key


def _elements(data: memoryview, at: int, storage: Storage) -> memoryview:
    start = at + _COUNT.size
    if start > len(data):
        raise pickle_refused("it is cut short: it ends before its elements")
    if _COUNT.unpack_from(data, at)[0] != storage.count:
        raise pickle_refused("its storage has another count than its id says")
    # The elements end exactly at the end: torch writes no bytes behind them.
    if len(data) - start < storage.size_bytes:
        raise pickle_refused(
            f"it is cut short: it has {len(data) - start:,} of its storage's "
            f"{storage.size_bytes:,} bytes"
        )
    if len(data) - start > storage.size_bytes:
        raise pickle_refused("it has bytes behind its storage")
    return data[start:]
