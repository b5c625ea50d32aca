"""How the adoption of a V2 entry can end, and which outcomes are worth another try."""

from __future__ import annotations

from enum import StrEnum


class Outcome(StrEnum):
    """The words under which the table and JSON count entries."""

    ADOPTED = "adopted"
    PRESENT = "present"
    NOT_V2 = "not_v2"
    BAD_NAME = "bad_name"
    INCOMPLETE = "incomplete"
    REFUSED = "refused"
    TOO_LARGE = "too_large"
    NO_OWNER = "no_owner"
    MIXED = "mixed"
    OTHER_VERSION = "other_version"
    OLDER_THAN_ORIGIN = "older_than_origin"
    ABSENT_AT_ORIGIN = "absent_at_origin"
    OUTDATED = "outdated"
    FROM_THE_FUTURE = "from_the_future"
    CHANGING = "changing"
    UNREADABLE = "unreadable"
    ORIGIN_FAILED = "origin_failed"
    NO_ROOM = "no_room"


MEANINGS = {
    Outcome.ADOPTED: "stored in the cache",
    Outcome.PRESENT: "the cache has the key already",
    Outcome.NOT_V2: "no member of V2's is there",
    Outcome.BAD_NAME: "the directory's name is not a valid id",
    Outcome.INCOMPLETE: "V2's clean-up or a crash took members",
    Outcome.REFUSED: "a member is damaged, or more than a plain tensor or image",
    Outcome.TOO_LARGE: "beyond limits.max_entry_bytes",
    Outcome.NO_OWNER: "needs --owner or --owners",
    Outcome.MIXED: "its files were not written together: two photos, perhaps",
    Outcome.OTHER_VERSION: "its kind has a version now: --kind-version says V2's",
    Outcome.OLDER_THAN_ORIGIN: "the origin has, or may have, a newer one",
    Outcome.ABSENT_AT_ORIGIN: "the origin has no such object any more",
    Outcome.OUTDATED: "invalidated since, or too old for the daemon to judge",
    Outcome.FROM_THE_FUTURE: "its files' times are in the future",
    Outcome.CHANGING: "changed while it was read: run again",
    Outcome.UNREADABLE: "a file cannot be read: see its permissions",
    Outcome.ORIGIN_FAILED: "the origin could not be asked: run again",
    Outcome.NO_ROOM: "the cache had no room, or could not write: run again",
}
# Another run may adopt these once the cause is gone; the other outcomes stay.
WORTH_ANOTHER_TRY = frozenset(
    {Outcome.CHANGING, Outcome.UNREADABLE, Outcome.ORIGIN_FAILED, Outcome.NO_ROOM}
)


class Skipped(Exception):
    """This entry is not adopted; the next entry may be."""

    def __init__(self, outcome: Outcome, detail: str = "") -> None:
        super().__init__(outcome.value)
        self.outcome = outcome
        self.detail = detail
