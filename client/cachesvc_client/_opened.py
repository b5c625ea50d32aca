"""An entry whose bytes are at hand, wherever they came from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from cachesvc_client._blob import BlobError, FieldLayout, alignment_of, read_layout
from cachesvc_client._views import aligned
from cachesvc_client.answers import EntryInfo, Received
from cachesvc_client.errors import UnreadableAnswer


class Opened(NamedTuple):
    """`blob` is writable and this entry's own, with each field where `layout` says."""

    info: EntryInfo
    layout: Mapping[str, FieldLayout]
    blob: memoryview


def opened(info: EntryInfo, blob: memoryview) -> Opened:
    """Read the blob's header; copy the blob if its fields are not aligned.

    Raises:
        UnreadableAnswer: if the blob is not one that this version reads.
    """
    try:
        layout = read_layout(blob)
    except BlobError as exc:
        raise UnreadableAnswer(f"{info.key.namespace}: {exc}") from exc
    at, alignment = alignment_of(layout)
    return Opened(info, layout, aligned(blob, at, alignment))


def opened_inline(received: Received) -> Opened:
    """Return an entry that came with its bytes. Raises UnreadableAnswer."""
    if received.blob is None:
        raise UnreadableAnswer("the entry came as a file, which was not asked for")
    return opened(received.info, received.blob)
