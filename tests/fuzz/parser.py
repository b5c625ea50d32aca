"""What is fuzzed: one parser, its refusals, and what must hold for the inputs that it accepts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

CORPUS = Path(__file__).parent / "corpus"


@dataclass(frozen=True)
class Parser:
    """`read` is given any bytes, and asserts what must hold for those that it accepts.

    It may raise only `refusals`. Inputs grow to `max_bytes`.
    """

    name: str
    read: Callable[[bytes], None]
    refusals: tuple[type[Exception], ...]
    max_bytes: int = 4096

    def attempt(self, data: bytes) -> bool:
        """Return whether the parser accepted `data`; raise any error that is no refusal."""
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
