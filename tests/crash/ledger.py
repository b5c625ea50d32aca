"""What has been acknowledged, and what may a Get be served after that?

The process that will die tells each event before it goes on; its killer keeps the same ledger from
these events. Versions only grow, and the origin never gets a version older than an acknowledged
one, so a Get from any tier may be compared with one number.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import NamedTuple

from cachesvc.core.keys import EntryKey
from tests.crash.swatches import KEYS


class Event(NamedTuple):
    """One line of the ledger. `what` is one of the methods of Ledger.

    `keys` are indexes into KEYS; `wall_ns` is when an answered change arrived; `at_s` (monotonic)
    is for readers of the report.
    """

    what: str
    version: int = 0
    keys: tuple[int, ...] = ()
    wall_ns: int = 0
    at_s: float = 0.0

    def line(self) -> bytes:
        keys = ",".join(map(str, self.keys))
        fields = (self.what, self.version, keys or "-", self.wall_ns, f"{self.at_s:.6f}")
        return " ".join(map(str, fields)).encode() + b"\n"


def parse(line: bytes) -> Event:
    what, version, keys, wall_ns, at_s = line.decode().split()
    indexes = () if keys == "-" else tuple(map(int, keys.split(",")))
    return Event(what, int(version), indexes, int(wall_ns), float(at_s))


@dataclass
class Account:
    """What is known of one key.

    `floor` is the oldest version that a Get may be served; `stored` is the version that L2 must
    still have, 0 if L2 may be empty; `at_origin` is the origin's version, 0 for none. While an
    invalidation `is_changing` the key, newer bytes may be served already, and a crash before its
    answer may bring the older ones back.
    """

    floor: int = 0
    stored: int = 0
    at_origin: int = 0
    changed_ns: int = 0
    is_changing: bool = False


@dataclass
class Ledger:
    """The accounts of all keys, and the number of events of each kind."""

    accounts: list[Account] = field(default_factory=lambda: [Account() for _ in KEYS])
    newest: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    last: deque[Event] = field(default_factory=lambda: deque(maxlen=40))

    def of(self, key: EntryKey) -> Account:
        return self.accounts[KEYS.index(key)]

    def apply(self, event: Event) -> None:
        self.last.append(event)
        self.counts[event.what] = self.counts.get(event.what, 0) + 1
        self.newest = max(self.newest, event.version)
        for index in event.keys:
            getattr(self, event.what)(self.accounts[index], event)

    # ---- what each event does to a key

    def upload(self, account: Account, event: Event) -> None:
        """The origin has this version from now on."""
        account.at_origin = event.version

    def put_begun(self, account: Account, event: Event) -> None:
        """Until the Put is answered, either entry may be there, the older or the newer."""

    def put(self, account: Account, event: Event) -> None:
        account.floor = max(account.floor, event.version)
        account.stored = event.version

    def put_failed(self, account: Account, event: Event) -> None:
        """If neither tier has room, the older entry is gone too."""
        account.stored = 0

    def put_unstored(self, account: Account, event: Event) -> None:
        """The Put was answered, in L1 only: L2 did not admit the entry, and has nothing older."""
        account.floor = max(account.floor, event.version)
        account.stored = 0

    def change_begun(self, account: Account, event: Event) -> None:
        """An invalidation has begun."""
        account.stored = 0
        account.is_changing = True

    def leaving_begun(self, account: Account, event: Event) -> None:
        """The entry may be gone from now on: evicted, or replaced by a fill."""
        account.stored = 0

    def change(self, account: Account, event: Event) -> None:
        """An invalidation was answered; the origin had this version before it began."""
        account.floor = max(account.floor, event.version)
        account.changed_ns = max(account.changed_ns, event.wall_ns)
        account.is_changing = False

    def get(self, account: Account, event: Event) -> None:
        """A version was served; no older one may be served later."""
        if not account.is_changing:
            account.floor = max(account.floor, event.version)

    def examined(self, account: Account, event: Event) -> None:
        """The engine was found in order after its start; nothing is under way."""
        account.is_changing = False

    def refused(self, account: Account, event: Event) -> None:
        """A late Put was refused, as it must be."""
