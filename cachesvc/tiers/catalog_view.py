"""L2's catalog for reading only, in another process than the daemon's.

Each call is a transaction of its own, so a long read delays neither the daemon's
writes nor the checkpoint of its log.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

from cachesvc.core.entry import Row
from cachesvc.core.errors import ConfigError, CorruptEntry
from cachesvc.core.keys import EntryKey
from cachesvc.tiers import catalog_damage as damage
from cachesvc.tiers import catalog_facts
from cachesvc.tiers import catalog_schema as schema
from cachesvc.tiers.catalog_facts import Facts, Total
from cachesvc.tiers.catalog_file import BUSY_TIMEOUT_S, FILE_NAME

PAGE_ROWS = 500
_FIRST = EntryKey("", "")
T = TypeVar("T")


class CatalogView:
    """The committed rows. Methods raise CorruptEntry if the catalog itself is damaged."""

    def __init__(self, directory: Path) -> None:
        """Open. Raises ConfigError: there is no catalog, or it cannot be opened."""
        path = directory / FILE_NAME
        if not path.is_file():
            raise ConfigError(
                f"{path}: no catalog; is CACHESVC_STATE_DIR the daemon's, and may you read it?"
            )
        try:
            uri = f"file:{quote(str(path))}?mode=ro"
            self._db = damage.connect(uri, timeout_s=BUSY_TIMEOUT_S, uri=True)
        except sqlite3.Error as exc:
            raise ConfigError(f"{path}: cannot be opened: {exc}") from exc
        self._path = path

    def total(self) -> Total:
        """Return the total of all namespaces."""
        sql = "SELECT coalesce(sum(entries), 0), coalesce(sum(stored_bytes), 0) FROM totals"
        return Total(*self._read(lambda: self._db.execute(sql).fetchone()))

    def facts(self) -> Facts:
        """Return the catalog's facts."""
        try:
            return self._read(lambda: catalog_facts.read(self._db))
        except damage.UnreadableRow as exc:
            raise CorruptEntry(f"the catalog is damaged: {exc}") from exc

    def rows(self) -> Iterator[Row]:
        """Yield every row by key; a row that is stored or deleted meanwhile may be missing."""
        sql = (
            f"SELECT {schema.COLUMNS} FROM entries WHERE (namespace, id) > (?, ?)"  # noqa: S608
            " ORDER BY namespace, id LIMIT ?"
        )
        after = _FIRST
        while page := self._read(
            lambda after=after: [  # type: ignore[misc]
                schema.row_of(found) for found in self._db.execute(sql, (*after, PAGE_ROWS))
            ]
        ):
            yield from page
            after = page[-1].meta.key

    def generation(self, key: EntryKey) -> int | None:
        """Return the generation that is the entry of `key` now."""
        sql = "SELECT generation FROM entries WHERE namespace = ? AND id = ?"
        found = self._read(lambda: self._db.execute(sql, key).fetchone())
        return None if found is None else int(found[0])

    def close(self) -> None:
        self._db.close()

    def _read(self, read: Callable[[], T]) -> T:
        try:
            version = self._db.execute("PRAGMA user_version").fetchone()[0]
            if version != schema.SCHEMA_VERSION:
                raise ConfigError(f"{self._path}: its schema is version {version}, not ours")
            return read()
        except sqlite3.Error as exc:
            if damage.is_damage(exc):
                raise CorruptEntry(f"the catalog is damaged: {exc}") from exc
            raise ConfigError(f"{self._path}: cannot be read: {exc}") from exc
