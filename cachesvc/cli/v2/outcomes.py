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
    Outcome.NOT_V2: "the directory holds no file of V2's",
    Outcome.BAD_NAME: "the directory's name is not a valid id",
    Outcome.INCOMPLETE: "files are missing: V2's clean-up or a crash deleted them",
    Outcome.REFUSED: "a file is damaged, or holds more than a plain tensor or image",
    Outcome.TOO_LARGE: "larger than limits.max_entry_bytes",
    Outcome.NO_OWNER: "neither --owner nor --owners names its owner",
    Outcome.MIXED: "its files were not written together, so they may be of two photos",
    Outcome.OTHER_VERSION: "its kind has a version; --kind-version must give V2's",
    Outcome.OLDER_THAN_ORIGIN: "the origin has, or may have, a newer object",
    Outcome.ABSENT_AT_ORIGIN: "the origin no longer has the object",
    Outcome.OUTDATED: "invalidated since V2 stored it, or too old for the daemon to know",
    Outcome.FROM_THE_FUTURE: "its files' times are in the future",
    Outcome.CHANGING: "it changed while it was read; run again",
    Outcome.UNREADABLE: "a file cannot be read; check its permissions",
    Outcome.ORIGIN_FAILED: "the origin could not be asked; run again",
    Outcome.NO_ROOM: "the cache had no room or could not write; run again",
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
