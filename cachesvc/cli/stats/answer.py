"""The parts of a Stats answer that both forms of the command show: a table, and JSON values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cachesvc.cli.conventions import output

if TYPE_CHECKING:
    from rich.table import Table

    from cachesvc_proto.v1.cache_pb2 import StatsResponse


def namespaces_table(answer: StatsResponse) -> Table:
    """Return what each namespace holds in both tiers."""
    headings = ("Namespace", ">In memory", ">of at most", ">Size", ">On disk", ">Size")
    table = output.table("Namespaces", headings)
    for namespace in answer.namespaces:
        table.add_row(
            namespace.namespace,
            str(namespace.memory_entries),
            str(namespace.memory_max_entries),
            output.size_text(namespace.memory_bytes),
            str(namespace.disk_entries),
            output.size_text(namespace.disk_bytes),
        )
    return table


def plain(value: Any) -> Any:
    """Return a message as JSON values. protobuf's JSON would have 64-bit counters as text."""
    if isinstance(value, (str, int, float)):
        return value
    if hasattr(value, "ToJsonString"):
        return value.ToJsonString()
    if hasattr(value, "DESCRIPTOR"):
        return {field.name: plain(getattr(value, field.name)) for field in value.DESCRIPTOR.fields}
    return [plain(element) for element in value]
