"""The daemon's answers as plain frozen values: times are aware datetimes in UTC."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum
from typing import NamedTuple


class Tier(str, Enum):
    """Where an entry was found. `UNKNOWN` also stands for tiers of a newer daemon."""

    UNKNOWN = "unknown"
    MEMORY = "memory"
    DISK = "disk"
    ORIGIN = "origin"


class EntryKey(NamedTuple):
    """Names one entry: a namespace such as `garment`, and an id in it."""

    namespace: str
    id: str


@dataclass(frozen=True)
class EntryInfo:
    """The description of an entry.

    `generation` is unique for each fill or Put. `filled_at` is when the fill began or the Put's
    source was read; `origin_time` is the oldest last change of its members at the origin. Times are
    None if the daemon did not send them. `stale` means that the entry has expired, but the origin
    could not be asked.
    """

    key: EntryKey
    size_bytes: int
    tier: Tier
    etag: str
    generation: int
    filled_at: datetime | None
    expires_at: datetime | None
    origin_time: datetime | None
    format_version: int
    kind_version: str
    stale: bool = False

    def __repr__(self) -> str:
        return (
            f"<EntryInfo {_text(self.key)}, {self.size_bytes} bytes from {self.tier.value}"
            f"{' (stale)' if self.stale else ''}, generation {self.generation}, "
            f"filled {_moment(self.filled_at)}, expires {_moment(self.expires_at)}>"
        )


@dataclass(frozen=True)
class InspectedTier:
    """One tier's copy of an entry. `owner_id` is empty if it is not known."""

    tier: Tier
    info: EntryInfo
    owner_id: str
    age: timedelta
    expires_in: timedelta
    accesses: int

    def __repr__(self) -> str:
        return (
            f"<InspectedTier {self.tier.value}, {_text(self.info.key)}, age {self.age}, "
            f"expires in {self.expires_in}, {self.accesses} accesses>"
        )


@dataclass(frozen=True)
class Inspection:
    """Which tiers hold a key, fastest first, and whether a fill of it is under way."""

    key: EntryKey
    tiers: tuple[InspectedTier, ...]
    filling: bool

    def __repr__(self) -> str:
        where = ", ".join(found.tier.value for found in self.tiers) or "no tier"
        return f"<Inspection {_text(self.key)} in {where}{', filling' if self.filling else ''}>"


class Invalidated(NamedTuple):
    """Proof of an invalidation. `invalidated_at` is when the daemon received the call."""

    removed_count: int
    invalidated_at: datetime | None


class WarmFailure(NamedTuple):
    """A key that is not cached now; `reason` is the reason that its Get would raise."""

    key: EntryKey
    reason: str

    @property
    def is_absent(self) -> bool:
        """Whether the origin said that it has no such object: an answer, and no failure."""
        return self.reason == "NO_SUCH_OBJECT"


class WarmProgress(NamedTuple):
    """The number of finished keys, the total, and the key that was just found absent or failed."""

    done: int
    total: int
    failed: WarmFailure | None


class WarmSummary(NamedTuple):
    """How a warm-up ended."""

    done: int
    total: int
    failed: tuple[WarmFailure, ...]

    def __repr__(self) -> str:
        return f"<WarmSummary {self.done} of {self.total} keys, {len(self.failed)} failed>"


def _text(key: EntryKey) -> str:
    return "/".join(key)


def _moment(time: datetime | None) -> str:
    return time.isoformat(sep=" ", timespec="seconds") if time else "at an unknown time"


def is_held(inspection: Inspection, generation: int) -> bool:
    """Return whether a tier still serves that generation, unexpired."""
    return any(
        found.info.generation == generation and found.expires_in > timedelta(0)
        for found in inspection.tiers
    )


class WarmTally:
    """Adds up the progress of one or more warm-ups, one after the other."""

    def __init__(self) -> None:
        self._ended: list[WarmProgress] = []
        self._failed: list[WarmFailure] = []

    def add(self, warm_up: int, progress: WarmProgress) -> None:
        """Take the next message of the warm-up number `warm_up`, counted from 0."""
        del self._ended[warm_up:]
        self._ended.append(progress)
        if progress.failed is not None:
            self._failed.append(progress.failed)

    @property
    def progress(self) -> str:
        """The finished keys in words."""
        ended = self.summary()
        if not ended.total:
            return "begun"
        failed = f", {len(ended.failed)} failed" if ended.failed else ""
        return f"{ended.done} of {ended.total} keys{failed}"

    def summary(self) -> WarmSummary:
        return WarmSummary(
            done=sum(last.done for last in self._ended),
            total=sum(last.total for last in self._ended),
            failed=tuple(self._failed),
        )
