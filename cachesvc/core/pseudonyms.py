"""What stands in a log line in place of an id? A keyed hash of the id.

An id has the same hash in every line of this installation, and nobody without the key
can test ids against a log.
"""

from __future__ import annotations

import hashlib
import secrets

KEY_BYTES = 32
_HASH_BYTES = 8


class Pseudonyms:
    """The hashes of one installation. Without a key they are those of this process alone."""

    def __init__(self, key: bytes | None = None) -> None:
        self._key = secrets.token_bytes(KEY_BYTES) if key is None else key

    def of(self, value: str) -> str:
        return hashlib.blake2b(value.encode(), key=self._key, digest_size=_HASH_BYTES).hexdigest()
