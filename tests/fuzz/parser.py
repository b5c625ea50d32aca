"""What is fuzzed: one parser, what it may refuse with, and what must hold for what it accepts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

CORPUS = Path(__file__).parent / "corpus"


@dataclass(frozen=True)
class Parser:
    """`read` is given any bytes at all and asserts what must hold for those it accepts.

    `refusals` are the only errors that may come out of it. Inputs grow to `max_bytes`.
    """

    name: str
    read: Callable[[bytes], None]
    refusals: tuple[type[Exception], ...]
    max_bytes: int = 4096

    def attempt(self, data: bytes) -> bool:
        """Return whether `data` was accepted; raise what it must not raise."""
        try:
            self.read(data)
        except self.refusals:
            return False
        return True

    @property
    def corpus(self) -> Path:
        return CORPUS / self.name

    def inputs(self) -> list[Path]:
        return sorted(self.corpus.iterdir())
