"""What are stored bytes good for? Only this module combines the facts that decide it.

| what is known of a row | SERVE | REVALIDATE | STALE_IF_ERROR |
|---|---|---|---|
| its kind may not hold it for this owner, or has another version | no | no | no |
| an invalidation of it is not durable yet | no | no | no |
| its age is unknown: it was confirmed in the future | no | | no |
| it has expired | no | | for `stale_if_error_s` more |
| it is older than `origin_after` | no | | no |
| a Put stored it, or its members are not the owner's objects | | no | |

Pure functions: the caller reads clocks and tables.
"""

from __future__ import annotations

from enum import Flag, auto
from typing import NamedTuple

from cachesvc.core.clock import NS_PER_S
from cachesvc.core.entry import EntryMeta, Row
from cachesvc.core.freshness import ANY_AGE, Need, is_answer_new_enough, is_new_enough
from cachesvc.core.kinds import Kind

# NTP may correct the clock by this much between two runs; the entries' ages stay known.
MAX_CLOCK_ERROR_NS = 60 * NS_PER_S


class Use(Flag):
    """What a row may be used for. A row can be good for several uses, or for none."""

    NOTHING = 0
    # Its bytes answer the call.
    SERVE = auto()
    # Conditional requests can tell whether its bytes are what the origin holds.
    REVALIDATE = auto()
    # Its bytes answer the call while the origin cannot be asked.
    STALE_IF_ERROR = auto()


class Ask(NamedTuple):
    """What a call asks. `grace_ns` allows for the coarseness of the origin's clock.

    `owner` is the owner whose prefix a fill would read, empty if no fill would follow.
    """

    need: Need = ANY_AGE
    grace_ns: int = 0
    owner: str = ""


def use_of(row: Row, kind: Kind, ask: Ask, steady_ns: int, *, invalidation_pending: bool) -> Use:
    """Return what `row`, an entry of L2, is good for at `steady_ns`."""
    meta = row.meta
    if invalidation_pending or meta.kind_version != kind.version:
        return Use.NOTHING
    if not kind.may_hold(meta.key.id, meta.owner):
        return Use.NOTHING
    use = Use.NOTHING
    if _is_of_origin(meta, kind, ask.owner):
        use |= Use.REVALIDATE
    is_known_age = meta.confirmed_ns <= steady_ns + MAX_CLOCK_ERROR_NS
    if is_known_age and is_stored_new_enough(meta, ask):
        late_ns = int(kind.stale_if_error_s * NS_PER_S)
        if steady_ns < row.expires_ns:
            use |= Use.SERVE
        if steady_ns < row.expires_ns + late_ns:
            use |= Use.STALE_IF_ERROR
    return use


def _is_of_origin(meta: EntryMeta, kind: Kind, owner: str) -> bool:
    """Return whether its members are the objects that a fill for `owner` would read.

    The fence knows only the flight's owner, and would miss an invalidation of another owner.
    """
    if meta.as_of_ns or meta.owner != owner:
        return False
    expected = [kind.object_key(field, meta.key, owner) for field in kind.fields]
    return [stamp.object_key for stamp in meta.stamps] == expected


def is_current(meta: EntryMeta, expires_ns: int, ask: Ask, steady_ns: int) -> bool:
    """Return whether an entry published since the start answers the call.

    Such an entry has its kind's version, and it leaves before its invalidation is durable.
    """
    return steady_ns < expires_ns and is_stored_new_enough(meta, ask)


def is_stored_new_enough(meta: EntryMeta, ask: Ask) -> bool:
    """Return whether a stored entry meets the call's `origin_after`, less the grace."""
    return is_new_enough(meta.origin_ns, ask.need, ask.grace_ns, read_ns=meta.begun_ns)


def is_said_new_enough(meta: EntryMeta, ask: Ask) -> bool:
    """As `is_stored_new_enough`, for an answer that the origin gave after the call's arrival."""
    return is_answer_new_enough(meta.origin_ns, ask.need, ask.grace_ns)
