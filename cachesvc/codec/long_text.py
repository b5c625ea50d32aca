"""How are megabytes of text in a pickle read without holding up the loop?

Protocols 0 to 2 write bytes as text. Names are short, so a long text can only be such bytes.
The text stays undecoded until `LongText.data` decodes it piece by piece, so that the interpreter
is held for one piece, and not for 0.3 s.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from dataclasses import dataclass

from cachesvc.codec.refusal import pickle_refused
from cachesvc.core.buffers import joined

# All other text in a stream is far shorter.
MAX_SHORT_BYTES = 64 * 1024
PIECE_BYTES = 256 * 1024
_ESCAPE_BYTES = len(rb"\u00ff")
_LEAD_BYTE = 0xC0

# Pickle writes a backslash only as the start of an escape, and bytes in text form
# have no character above 0xFF.
_BEYOND_LATIN1_ESCAPE = re.compile(rb"\\(?!u00[0-9a-fA-F]{2})")


@dataclass(frozen=True, slots=True)
class LongText:
    """Text of more than MAX_SHORT_BYTES, not checked yet. `is_escaped` = of protocol 0."""

    raw: memoryview
    is_escaped: bool

    def data(self) -> memoryview:
        """Return the bytes that the text stands for.

        Raises:
            OriginDataCorrupt: reason PICKLE_REFUSED, if `raw` is not text that stands for bytes.
        """
        return joined(list(self._decoded()))

    def _decoded(self) -> Iterator[bytes]:
        at = 0
        while at < len(self.raw):
            piece = self.raw[at : at + PIECE_BYTES]
            at += len(piece)
            if at < len(self.raw):
                cut_bytes = _cut_escape(piece) if self.is_escaped else _cut_character(piece)
                piece, at = piece[: len(piece) - cut_bytes], at - cut_bytes
            yield latin1(escaped(piece) if self.is_escaped else utf8(piece))


def utf8(raw: memoryview) -> str:
    """Return a text of protocol 1 or later. Characters beyond Latin-1 are refused."""
    try:
        text = str(raw, "utf-8")
    except UnicodeDecodeError as exc:
        raise pickle_refused("a text is not UTF-8") from exc
    latin1(text)
    return text


def escaped(raw: memoryview) -> str:
    """Return a text of protocol 0."""
    if _BEYOND_LATIN1_ESCAPE.search(raw) is not None:
        raise pickle_refused("a text has an escape that bytes in text form never need")
    return codecs.decode(raw, "raw-unicode-escape")


def latin1(text: str) -> bytes:
    """Return the bytes that a text stands for."""
    try:
        return text.encode("latin-1")
    except UnicodeEncodeError as exc:
        raise pickle_refused("a text has characters beyond Latin-1") from exc


def _cut_escape(piece: memoryview) -> int:
    """Return how many bytes at the end belong to an escape that may be cut."""
    tail = bytes(piece[1 - _ESCAPE_BYTES :])
    found = tail.rfind(b"\\")
    return 0 if found < 0 else len(tail) - found


def _cut_character(piece: memoryview) -> int:
    """Return 1 if the last byte begins a character of two bytes."""
    return int(piece[-1] >= _LEAD_BYTE)
