"""An entry whose bytes can be read, from an answer or a file."""

from __future__ import annotations

from typing import NamedTuple

from cachesvc_client._blob import Layout, read_layout, read_layout_of_file
from cachesvc_client._reading import Received
from cachesvc_client._views import aligned
from cachesvc_client.answers import EntryInfo
from cachesvc_client.errors import UnreadableAnswer
from cachesvc_format.blob import BlobError
from cachesvc_proto.v1 import cache_pb2


class Opened(NamedTuple):
    """`blob` is writable and this entry's own, with each field where `layout` says."""

    info: EntryInfo | cache_pb2.EntryInfo
    layout: Layout
    blob: memoryview


def opened(info: EntryInfo | cache_pb2.EntryInfo, blob: memoryview) -> Opened:
    """Read the blob's header; copy the blob if its fields are not aligned.

    Raises:
        UnreadableAnswer: if this version cannot read the blob.
    """
    try:
        layout = read_layout(blob)
    except BlobError as exc:
        raise _unreadable(info, exc) from exc
    return Opened(info, layout, aligned(blob, *layout.alignment))


def opened_file(info: EntryInfo | cache_pb2.EntryInfo, fd: int, blob: memoryview) -> Opened:
    """The same for the blob of an open file, mapped as `blob`."""
    try:
        layout = read_layout_of_file(fd, info.size_bytes)
    except BlobError as exc:
        raise _unreadable(info, exc) from exc
    at, alignment = layout.alignment
    if at % alignment == 0:  # a mapping starts at a page
        return Opened(info, layout, blob)
    return Opened(info, layout, aligned(blob, at, alignment))


def opened_inline(received: Received) -> Opened:
    """Return an entry that was received inline. Raises UnreadableAnswer."""
    if received.blob is None:
        raise UnreadableAnswer("the entry came as a file, which was not asked for")
    return opened(received.info, received.blob)


def _unreadable(info: EntryInfo | cache_pb2.EntryInfo, exc: BlobError) -> UnreadableAnswer:
    return UnreadableAnswer(f"{info.key.namespace}: {exc}")
