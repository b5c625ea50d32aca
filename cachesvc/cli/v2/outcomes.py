"""How the adoption of a V2 entry can end, and what an operator can do about each outcome."""

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
    CHANGES_UNKNOWN = "changes_unknown"
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
    Outcome.OUTDATED: "invalidated since V2 stored it, or older than the daemon remembers",
    Outcome.CHANGES_UNKNOWN: "the daemon may not know of all changes since V2 stored it",
    Outcome.FROM_THE_FUTURE: "its files' times are in the future",
    Outcome.CHANGING: "it changed while it was read",
    Outcome.UNREADABLE: "a file cannot be read",
    Outcome.ORIGIN_FAILED: "the origin could not be asked",
    Outcome.NO_ROOM: "the cache had no room or could not write",
}
WOULD_BE_ADOPTED = "would be stored in the cache"
# What has to be done before another run can adopt these. The other outcomes stay as they are.
REMEDIES = {
    Outcome.NO_OWNER: "name the owners with --owner or --owners",
    Outcome.OTHER_VERSION: "name V2's version with --kind-version, or leave these entries out",
    Outcome.CHANGES_UNKNOWN: (
        "leave these entries to the origin, or begin with an empty cache: stop the daemon, empty "
        "l2.root and state_dir, start it, and import with --compare-all before traffic comes"
    ),
    Outcome.FROM_THE_FUTURE: "set this host's clock, or wait until it is later than the files",
    Outcome.CHANGING: "run again once nothing writes there",
    Outcome.UNREADABLE: "let this user read the files",
    Outcome.ORIGIN_FAILED: "`cachesvc doctor` asks the origin what is wrong; then run again",
    Outcome.NO_ROOM: "free space on the disk of l2.root; then run again",
}


class Skipped(Exception):
    """This entry is not adopted; the next entry may be."""

    def __init__(self, outcome: Outcome, detail: str = "") -> None:
        super().__init__(outcome.value)
        self.outcome = outcome
        self.detail = detail
