"""Reads L2 for a flight: the row, then its file. What is damaged or gone is a miss.

Nothing is published here: the caller checks the fence again when it has the bytes.
"""

from __future__ import annotations

import errno

from cachesvc.core.entry import Row
from cachesvc.core.errors import CorruptEntry, NotDurable
from cachesvc.engine.flight import Flight
from cachesvc.engine.state import State, log
from cachesvc.tiers.rooms import Room
from cachesvc.tiers.shared_files import Blob

# ENOENT: V2's clean-up deletes by age. The others: something else has a directory's name.
_FILE_IS_GONE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)


class RowReader:
    """Looks rows up and reads their files."""

    def __init__(self, state: State) -> None:
        self._state = state

    async def lookup(self, flight: Flight) -> Row | None:
        """Return the key's row, None if there is none, or L2 may not or cannot be asked.

        Also None for a person's entry that the first release read from another person's prefix.
        """
        if flight.source_owner is not None:
            return None
        try:
            row = await self._state.disk.lookup(flight.key)
        except NotDurable as exc:
            log.warning("catalog_unreadable", error=str(exc))
            return None
        if row is not None and not flight.kind.may_hold(flight.key.id, row.meta.owner):
            return None
        return row

    async def read_into(self, row: Row, room: Room) -> bool:
        """Read the file of `row` into `room`; False if it cannot be read.

        On False the row is deleted if its file is missing or corrupt. It is kept on other
        errors (EMFILE, EIO): they are transient, and a Put's bytes may exist nowhere else.
        """
        state, namespace = self._state, row.meta.key.namespace
        try:
            await state.write_to_memory(
                room,
                lambda: state.disk.read_into(row, lambda chunks: state.memory.write(room, chunks)),
            )
        except CorruptEntry as exc:
            state.metrics.damaged.inc()
            log.warning("entry_damaged", namespace=namespace, error=exc.message)
            await state.disk.quarantine(row)
            return False
        except OSError as exc:
            if exc.errno in _FILE_IS_GONE:
                log.info("entry_lost", namespace=namespace, error=exc.strerror)
                await state.disk.remove(row)
            else:
                log.warning("entry_unreadable", namespace=namespace, error=exc.strerror)
            return False
        return True

    async def read_to_heap(self, row: Row) -> Blob | None:
        """Return the bytes of `row`, outside L1; None if they cannot be read."""
        memory = self._state.memory
        room = memory.heap_room(row.meta.size_bytes)
        try:
            if not await self.read_into(row, room):
                return None
            memory.keep_in_reach(room.written, row.meta)
            return room.written
        finally:
            memory.discard(room)
