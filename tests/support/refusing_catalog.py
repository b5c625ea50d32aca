"""A catalog that cannot be written for a while."""

from __future__ import annotations

from typing import Any

from cachesvc.core.errors import NotDurable
from tests.support.engine.house import EngineHouse


class RefusingCatalog:
    """Makes the catalog's commits fail for a while, as a full disk does."""

    def __init__(self, house: EngineHouse) -> None:
        self._catalog = house.catalog
        self._run = house.catalog._writes._run_batch  # type: ignore[attr-defined]
        self.refuses = True
        house.catalog._writes._run_batch = self._run_batch  # type: ignore[attr-defined]

    def _run_batch(self, batch: list[Any]) -> None:
        if not self.refuses:
            self._run(batch)
            return
        for write in batch:
            write.error = NotDurable("the disk is full")
