"""What should an operator be told about this cache now, and what should they do?

Pure: the readings are handed in.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from cachesvc.core.certificates import Outlook

# Above this share, readers of evicted entries hold most of what L1 may take.
HELD_SHARE = 0.5
# While L2 gives way to others its floor stays free, so its share shows them.
LEAST_SHARE = 0.9
# Every call waits for the loop; a hit takes a hundredth of this.
MAX_LOOP_LAG_S = 0.25


class Advice(NamedTuple):
    """`id` is stable. `critical`: a promise does not hold until the problem is mended.

    `runbook` names the section of docs/runbook.md about it, empty if there is none.
    """

    id: str
    severity: Literal["critical", "warning"]
    text: str
    do: str
    runbook: str = ""


@dataclass(frozen=True, slots=True)
class Readings:
    """The state that advice depends on. Counts are since the start, sizes are bytes."""

    not_ready: dict[str, str]
    is_origin_left_alone: bool
    unfinished_invalidations: int
    damaged_entries: int
    decode_failures: int
    catalog_resets: int
    disk_rejections: int
    memory_max_bytes: int
    held_bytes: int
    foreign_names: int
    disk_free_bytes: int
    disk_floor_bytes: int
    loop_lag_s: float
    disk_max_bytes: int = 0
    # How much L2 may have now: less if others fill its file system.
    disk_limit_in_force_bytes: int = 0
    # One for each listener with TLS, by the metric's label.
    certificates: Mapping[str, Outlook] = field(default_factory=dict)


def advise(readings: Readings) -> list[Advice]:
    """Return the advice, the critical first."""
    found = [*_critical(readings), *_data_warnings(readings), *_room_warnings(readings)]
    assert [a.severity for a in found] == sorted(a.severity for a in found)
    return found


def _critical(readings: Readings) -> Iterator[Advice]:
    for part, problem in readings.not_ready.items():
        yield Advice(
            f"not_ready_{part}",
            "critical",
            f"Not ready: {part}: {problem}.",
            "Wait for the start or the shutdown to end. Any other problem has its cause in the "
            "daemon's log.",
            "CachesvcNotReady",
        )
    if readings.unfinished_invalidations:
        yield Advice(
            "invalidations_not_durable",
            "critical",
            f"{readings.unfinished_invalidations} invalidations are not final: the disk refuses "
            "them. Their entries are not served, but a restart could bring them back.",
            "Free space on, or repair, the disks of l2.root and state_dir. It is retried "
            "every second; do not restart the daemon before it succeeded.",
            "CachesvcInvalidationsNotDurable",
        )
    over = _with(readings.certificates, Outlook.EXPIRED, Outlook.NOT_YET)
    if over:
        yield Advice(
            "certificates_over",
            "critical",
            f"Certificates that do not hold now: {over}. No handshake that needs them succeeds.",
            "Put new files in their places by renaming; no restart. If their dates are right, set "
            "this host's clock.",
            "CachesvcCertificateEnding",
        )


def _data_warnings(readings: Readings) -> Iterator[Advice]:
    if readings.is_origin_left_alone:
        yield Advice(
            "origin_left_alone",
            "warning",
            "The origin did not answer several fills in a row and is left alone for a moment. "
            "Misses fail; hits do not.",
            "Check the network, the origin's own status, and the daemon's credentials.",
            "CachesvcOriginCircuitOpen",
        )
    if readings.catalog_resets:
        yield Advice(
            "catalog_reset",
            "warning",
            "The catalog was damaged and set aside; L2 began empty.",
            "Check the disk of state_dir. Nothing is lost: entries are filled again.",
            "CachesvcCatalogLost",
        )
    if readings.damaged_entries:
        yield Advice(
            "damaged_entries",
            "warning",
            f"{readings.damaged_entries} entries of L2 failed their checksum and were refilled.",
            "Check the disk of l2.root; the damaged files are in its .quarantine.",
            "CachesvcEntriesDamaged",
        )
    soon = _with(readings.certificates, Outlook.ENDS_SOON)
    if soon:
        yield Advice(
            "certificates_end_soon",
            "warning",
            f"Certificates that end soon: {soon}.",
            "Renew them: put new files in their places by renaming; no restart.",
            "CachesvcCertificateEndsSoon",
        )
    if readings.decode_failures:
        yield Advice(
            "undecodable_objects",
            "warning",
            f"{readings.decode_failures} objects of the origin could not be decoded safely.",
            "The log names their hashes, and the failed call its object_keys: write them again.",
            "CachesvcDecodeFailing",
        )


def _with(certificates: Mapping[str, Outlook], *outlooks: Outlook) -> str:
    return ", ".join(sorted(name for name, found in certificates.items() if found in outlooks))


def _room_warnings(readings: Readings) -> Iterator[Advice]:
    is_at_floor = readings.disk_free_bytes < readings.disk_floor_bytes
    if is_at_floor or readings.disk_limit_in_force_bytes < LEAST_SHARE * readings.disk_max_bytes:
        yield Advice(
            "disk_at_floor",
            "warning",
            "Others fill the disk of l2.root: L2 may have "
            f"{readings.disk_limit_in_force_bytes:,} of its {readings.disk_max_bytes:,} bytes, and "
            "evicts what is more.",
            "Find who fills the disk, or lower l2.max_bytes.",
            "CachesvcDiskAtFloor",
        )
    if readings.loop_lag_s > MAX_LOOP_LAG_S:
        yield Advice(
            "loop_lagging",
            "warning",
            f"The event loop comes up to {readings.loop_lag_s:.2f} s late; calls wait for it.",
            "Look for a starved processor: top, and the cgroup's throttling.",
            "CachesvcLoopLagging",
        )
    if readings.disk_rejections:
        yield Advice(
            "disk_rejections",
            "warning",
            f"L2 did not take {readings.disk_rejections} entries.",
            "Free space on the disk of l2.root, or lower l2.free_floor_bytes; if the disk is "
            "slow, raise l2.max_pending_bytes.",
            "CachesvcDiskRejecting",
        )
    if readings.held_bytes > HELD_SHARE * readings.memory_max_bytes:
        yield Advice(
            "held_by_readers",
            "warning",
            "More than half of L1's bytes are evicted entries that workers still hold.",
            "Let workers drop their tensors sooner, or raise l1.max_bytes.",
            "CachesvcHeldBytesHigh",
        )
    if readings.foreign_names:
        yield Advice(
            "foreign_names",
            "warning",
            f"{readings.foreign_names} names under l2.root are not the daemon's.",
            "They are never read or deleted. If they are V2's, delete them when the way back "
            "is no longer needed.",
        )
