"""Which versions have been acknowledged so far, for all processes of a test?

A writer raises a key's floor after each acknowledgement; a reader reads the floor before it starts
a Get. The version that it is served must not be below that floor. No clocks are compared.
"""

from __future__ import annotations

import mmap
import struct
from pathlib import Path

from tests.support.daemons import wait_until

_WORD = struct.Struct("<q")
_MAX_KEYS = 256
_MAX_READERS = 64
_STARTED_WITHIN_S = 30.0


class Board:
    """A floor for each key, a count for each reader, and a word that ends the run.

    A word is written whole.
    """

    def __init__(self, path: Path) -> None:
        size_bytes = _WORD.size * (1 + _MAX_KEYS + _MAX_READERS)
        if not path.exists():
            path.write_bytes(bytes(size_bytes))
        with path.open("r+b") as file:
            self._words = mmap.mmap(file.fileno(), size_bytes)

    def floor(self, key: int) -> int:
        """Return the oldest version that a Get of `key` that starts now may be served."""
        version: int = _WORD.unpack_from(self._words, _WORD.size * (1 + key))[0]
        return version

    def raise_floor(self, key: int, version: int) -> None:
        assert version >= self.floor(key)
        _WORD.pack_into(self._words, _WORD.size * (1 + key), version)

    def count(self, reader: int, gets: int) -> None:
        """Record a reader's number of Gets, for `wait_for_gets`."""
        _WORD.pack_into(self._words, _WORD.size * (1 + _MAX_KEYS + reader), gets)

    @property
    def gets(self) -> int:
        """The number of Gets of all readers."""
        return sum(self._counts())

    def wait_for_readers(self, count: int) -> None:
        """Return once `count` readers had a Get: on a busy machine their imports take seconds."""
        wait_until(lambda: sum(gets > 0 for gets in self._counts()) >= count, _STARTED_WITHIN_S)

    def wait_for_gets(self, more: int) -> None:
        """Return once all readers together had `more` Gets."""
        enough = self.gets + more
        wait_until(lambda: self.gets >= enough, _STARTED_WITHIN_S)

    @property
    def is_over(self) -> bool:
        return self._words[0] != 0

    def end(self) -> None:
        _WORD.pack_into(self._words, 0, 1)

    def _counts(self) -> list[int]:
        words = _WORD.iter_unpack(self._words[_WORD.size * (1 + _MAX_KEYS) :])
        return [gets for (gets,) in words]
