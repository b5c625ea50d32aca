"""Which files of L2 have no row, and get none? A crash or a lost catalog left them."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import Executor
from dataclasses import dataclass

from cachesvc.core.keys import EntryKey
from cachesvc.tiers.catalog import Catalog
from cachesvc.tiers.disk_files import DiskFiles, Location

# Files that a sweep looks at in one step.
BATCH = 200


@dataclass(slots=True)
class LitterReport:
    """What a sweep found."""

    removed_files: int = 0
    foreign_names: int = 0


class DiskLitter:
    """Unlinks files without a row. A file in `awaiting_row` is no litter: its row is to come."""

    def __init__(
        self,
        files: DiskFiles,
        catalog: Catalog,
        readers: Executor,
        unlink: Callable[[list[Location]], Awaitable[None]],
    ) -> None:
        self._files = files
        self._catalog = catalog
        self._readers = readers
        self._unlink = unlink
        self.awaiting_row: set[Location] = set()

    async def sweep(self, namespace: str, before_generation: int) -> LitterReport:
        """Remove files of `namespace` that have no row and await none.

        Skips generations from `before_generation` on. Names that are not ours are counted, never
        deleted.
        """
        report, loop = LitterReport(), asyncio.get_running_loop()
        walk = self._files.walk(namespace)

        def next_batch() -> list[Location | None]:
            return list(itertools.islice(walk, BATCH))

        while batch := await loop.run_in_executor(self._readers, next_batch):
            old = (at for at in batch if at is not None and at.generation < before_generation)
            litter = await self._litter_of(namespace, old)
            await self._unlink(litter)
            report.removed_files += len(litter)
            report.foreign_names += batch.count(None)
        return report

    async def sweep_key(self, key: EntryKey) -> None:
        """Remove the files of `key` that have no row and await none."""
        loop = asyncio.get_running_loop()
        listed = await loop.run_in_executor(self._readers, self._files.list_key, key)
        await self._unlink(await self._litter_of(key.namespace, listed))

    async def _litter_of(self, namespace: str, listed: Iterable[Location]) -> list[Location]:
        """Return the files, of those listed just now, that have no row and await none.

        A Put's file is listed | which files await a row | its row commits | who has a row

        Order matters: list files, read `awaiting_row`, query rows. Earlier, we would miss a file
        renamed during the listing; later, one whose row committed meanwhile.
        """
        ours = [at for at in listed if at not in self.awaiting_row]
        ids = list({at.key.id for at in ours})
        loop = asyncio.get_running_loop()
        current = await loop.run_in_executor(
            self._readers, self._catalog.generations, namespace, ids
        )
        return [at for at in ours if current.get(at.key.id) != at.generation]
