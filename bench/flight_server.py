"""An Arrow Flight server that answers one stored record batch.

Run as `python -m bench.flight_server SOCKET FILE`.
"""

from __future__ import annotations

import sys
from typing import Any

import pyarrow as pa
import pyarrow.flight


class OneTable(pa.flight.FlightServerBase):  # type: ignore[misc] # pyarrow has no types
    """Answers the same table to every ticket."""

    def __init__(self, location: str, table: pa.Table) -> None:
        super().__init__(location)
        self._table = table

    def do_get(self, _context: Any, _ticket: Any) -> pa.flight.RecordBatchStream:
        return pa.flight.RecordBatchStream(self._table)


if __name__ == "__main__":
    with pa.ipc.open_file(sys.argv[2]) as reader:
        stored = reader.read_all()
    OneTable(f"grpc+unix://{sys.argv[1]}", stored).serve()
