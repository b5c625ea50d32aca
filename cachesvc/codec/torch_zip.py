"""How is the zip form of `torch.save` read without trusting the archive?

torch stores its records uncompressed under one folder: `data.pkl` (a pickle whose
persistent ids name storages), `data/0` (the elements) and records of small facts.

Why not `zipfile`: it reads the whole directory, even millions of entries, before the
entries can be counted, accepts compressed, encrypted and prefixed archives, and copies
a record to read it. This module accepts only torch's archives.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass, replace

from cachesvc.codec.opcodes import Dialect, run
from cachesvc.codec.refusal import pickle_refused
from cachesvc.codec.torch_legacy import OneStorage
from cachesvc.codec.torch_views import (
    BIG_ENDIAN,
    STORAGE_CLASSES,
    TENSOR_FUNCTIONS,
    Storage,
    View,
    checked_view,
)
from cachesvc_format.foreign import ZIP_SIGNATURE

SIGNATURE = ZIP_SIGNATURE
# torch 2.13 writes 7 members for a tensor.
MAX_MEMBERS = 64
MAX_MEMBER_NAME_BYTES = 256

END = struct.Struct("<4s4H2IH")
_END64_LOCATOR = struct.Struct("<4sIQI")
_END64 = struct.Struct("<4sQ2H2I4Q")
ENTRY = struct.Struct("<4s6H3I5H2I")
LOCAL = struct.Struct("<4s5H3I2H")
_ENCRYPTED_FLAG = 0x1
END_SIGNATURE = b"PK\x05\x06"
ENTRY_SIGNATURE = b"PK\x01\x02"


@dataclass(frozen=True, slots=True)
class _Member:
    """One record: where its local header starts, how long it is, its checksum."""

    header_at: int
    size_bytes: int
    crc32: int


@dataclass(frozen=True, slots=True)
class _Directory:
    """Where the list of members starts, and its count of them."""

    start: int
    count: int


def read_zip(data: memoryview) -> View:
    """Return the tensor of a zip file that `torch.save` wrote.

    Raises:
        OriginDataCorrupt: reason PICKLE_REFUSED.
    """
    directory = _find_directory(data)
    members = _list_members(data, directory)
    folder = next(iter(members)).split("/", 1)[0] if members else ""

    def record(name: str) -> memoryview:
        return _read_member(data, directory, members, f"{folder}/{name}")

    if f"{folder}/byteorder" in members and bytes(record("byteorder")) != b"little":
        raise pickle_refused(BIG_ENDIAN)
    holder = OneStorage(id_length=5)
    stream = record("data.pkl")
    value, end = run(stream, 0, Dialect({**STORAGE_CLASSES, **TENSOR_FUNCTIONS}, holder.load))
    view = checked_view(value)
    if end != len(stream):
        raise pickle_refused("it has bytes behind the tensor")
    return replace(view, storage=_filled(view.storage, record(f"data/{view.storage.key}")))


def _filled(storage: Storage, elements: memoryview) -> Storage:
    if len(elements) != storage.size_bytes:
        raise pickle_refused("its storage's record has another size")
    return replace(storage, data=elements)


def _unpack(layout: struct.Struct, data: memoryview, at: int) -> tuple[bytes | int, ...]:
    if at < 0 or at + layout.size > len(data):
        raise pickle_refused("its archive is cut short")
    return layout.unpack_from(data, at)


def _numbers(layout: struct.Struct, data: memoryview, at: int, signature: bytes) -> list[int]:
    """Return the numbers behind the signature that a zip record starts with."""
    found, *numbers = _unpack(layout, data, at)
    if found != signature:
        raise pickle_refused("its archive is damaged")
    return [int(number) for number in numbers]


def _find_directory(data: memoryview) -> _Directory:
    # At the very end: torch writes no comment and nothing behind the archive.
    end_at = len(data) - END.size
    if data[end_at : end_at + 4] != END_SIGNATURE:
        raise pickle_refused("it is cut short, or has bytes behind its archive: store it again")
    *_, count, size_bytes, start, _ = _numbers(END, data, end_at, END_SIGNATURE)
    locator_at = end_at - _END64_LOCATOR.size
    if locator_at >= 0 and bytes(data[locator_at : locator_at + 4]) == b"PK\x06\x07":
        _, end64_at, _ = _numbers(_END64_LOCATOR, data, locator_at, b"PK\x06\x07")
        *_, count, size_bytes, start = _numbers(_END64, data, end64_at, b"PK\x06\x06")
    if count > MAX_MEMBERS or start + size_bytes > len(data):
        raise pickle_refused("its archive's directory is too long or lies outside of it")
    return _Directory(start, count)


def _list_members(data: memoryview, directory: _Directory) -> dict[str, _Member]:
    members: dict[str, _Member] = {}
    at = directory.start
    for _ in range(directory.count):
        entry = _numbers(ENTRY, data, at, ENTRY_SIGNATURE)
        _, _, flags, method, _, _, crc32, stored_bytes, size_bytes = entry[:9]
        name_bytes, extra_bytes, comment_bytes, disk, _, _, header_at = entry[9:]
        if method or disk or flags & _ENCRYPTED_FLAG or stored_bytes != size_bytes:
            raise pickle_refused(
                "a record of its archive is compressed, encrypted or elsewhere: "
                "store the file as torch.save wrote it"
            )
        at += ENTRY.size
        name = _member_name(data, at, name_bytes)
        if name in members:
            raise pickle_refused("its archive has two records of one name")
        members[name] = _Member(header_at, size_bytes, crc32)
        at += name_bytes + extra_bytes + comment_bytes
    return members


def _member_name(data: memoryview, at: int, name_bytes: int) -> str:
    raw = data[at : at + name_bytes]
    if name_bytes > MAX_MEMBER_NAME_BYTES or len(raw) != name_bytes:
        raise pickle_refused("a record of its archive has too long a name")
    try:
        return str(raw, "utf-8")
    except UnicodeDecodeError as exc:
        raise pickle_refused("a record of its archive has a name that is not UTF-8") from exc


def _read_member(
    data: memoryview, directory: _Directory, members: dict[str, _Member], name: str
) -> memoryview:
    member = members.get(name)
    if member is None:
        raise pickle_refused("its archive lacks a record that a tensor needs")
    *_, name_bytes, extra_bytes = _numbers(LOCAL, data, member.header_at, SIGNATURE)
    start = member.header_at + LOCAL.size + name_bytes + extra_bytes
    end = start + member.size_bytes
    if end > directory.start:
        raise pickle_refused("a record of its archive reaches outside of it")
    # torch.load ignores the checksum, but a damaged photo should not be served.
    if _has_checksums(members) and zlib.crc32(data[start:end]) != member.crc32:
        raise pickle_refused("a record of its archive has a wrong checksum: store it again")
    return data[start:end]


def _has_checksums(members: dict[str, _Member]) -> bool:
    """Return False for a file of `torch.serialization.set_crc32_options(False)`.

    torch then writes 0 as the checksum of every record. Damage of a file with checksums leaves
    another one.
    """
    return any(member.crc32 for member in members.values())
