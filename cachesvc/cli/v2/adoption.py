"""Decides whether an entry of V2's may be served again, and puts it into the daemon.

V2's disk never expired, so a person's files may be of a photo that was replaced long ago. They are
adopted only if every file is newer than the origin's object by a margin, because V2 could read an
object, an upload could replace it, and V2 could then write its file. `as_of` is the time of the
oldest file, so every invalidation since then refuses the Put.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import TYPE_CHECKING

from cachesvc.cli.v2.entries import Member, V2Directory, source_ns
from cachesvc.cli.v2.outcomes import Outcome, Skipped
from cachesvc.codec import members as codec
from cachesvc.core.clock import NS_PER_S, Clock
from cachesvc.core.errors import NoSuchObject, OriginDataCorrupt, OriginError
from cachesvc.core.keys import EntryKey
from cachesvc.core.kinds import Kind, Kinds, Subject
from cachesvc.core.origin import DatedOrigin, OriginStamp
from cachesvc_client import Aborted, InvalidRequest, NotDurable, Overloaded, Tier
from cachesvc_client.requests import PutOptions
from cachesvc_format.blob import Tensor
from cachesvc_format.names import is_id

if TYPE_CHECKING:
    from cachesvc_client import CacheClient

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class OriginTimes:
    """Asks the origin, on its own loop. Nothing is opened before the first request."""

    def __init__(self, origin: DatedOrigin) -> None:
        self._origin = origin
        self._runner = asyncio.Runner()

    def __enter__(self) -> OriginTimes:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._runner.run(self._origin.close())
        self._runner.close()

    def of(self, kind: Kind, key: EntryKey, owner: str) -> dict[str, float]:
        """Return when each field's object was last changed. Raises Skipped."""

        async def ask() -> list[OriginStamp]:
            object_keys = (kind.object_key(field, key, owner) for field in kind.fields)
            return await asyncio.gather(*map(self._origin.stamp, object_keys))

        try:
            stamps = self._runner.run(ask())
        except NoSuchObject as exc:
            raise Skipped(Outcome.ABSENT_AT_ORIGIN, ", ".join(exc.object_keys)) from exc
        except OriginError as exc:
            raise Skipped(Outcome.ORIGIN_FAILED, f"{exc.message} ({exc.reason})") from exc
        names = (field.name for field in kind.fields)
        return dict(zip(names, (stamp.last_modified_s for stamp in stamps), strict=True))


@dataclass(frozen=True, slots=True)
class Policy:
    """Who owns what, and what is compared with the origin.

    `owners` is by clothing_id; `owner` is for all others. `margin_s` is longer than any load or
    save of V2: a file must be newer than its object by more than the margin, and the files of
    an entry were written within it. `kind_version` is of the model that made V2's tensors.
    `compare_all` compares every kind, not only private ones. `dry_run` has the daemon judge each
    Put without storing it.
    """

    owner: str
    owners: Mapping[str, str]
    margin_s: float
    kind_version: str = ""
    compare_all: bool = False
    dry_run: bool = False

    def owner_of(self, kind: Kind, key: EntryKey) -> str:
        """Return whose prefix the entry belongs to. Raises Skipped if no owner is known."""
        if kind.subject is Subject.USER:
            return key.id
        owner = self.owners.get(key.id, self.owner)
        if not owner:
            raise Skipped(Outcome.NO_OWNER)
        return owner


class Adopter:
    """Adopts entries one by one into the daemon behind `client`."""

    def __init__(
        self,
        directory: V2Directory,
        kinds: Kinds,
        client: CacheClient,
        origin: OriginTimes,
        policy: Policy,
        clock: Clock,
    ) -> None:
        self._directory = directory
        self._kinds = kinds
        self._client = client
        self._origin = origin
        self._policy = policy
        self._clock = clock

    def adopt(self, namespace: str, name: str) -> tuple[Outcome, str]:
        """Return the outcome, with a detail.

        Raises CacheServiceError for a failure that concerns every entry: the daemon is away, or
        does not allow this caller to put.
        """
        try:
            return self._adopt(namespace, name), ""
        except Skipped as skipped:
            return skipped.outcome, skipped.detail

    def _adopt(self, namespace: str, name: str) -> Outcome:
        if not is_id(name):
            raise Skipped(Outcome.BAD_NAME)
        kind, key = self._kinds.of(namespace), EntryKey(namespace, name)
        if self._client.inspect(namespace, name).tiers:
            return Outcome.PRESENT
        if kind.version != self._policy.kind_version:
            raise Skipped(Outcome.OTHER_VERSION)
        members = self._directory.read(namespace, name)
        owner = self._policy.owner_of(kind, key)
        as_of_ns = source_ns(members, self._clock.read().wall_ns, self._policy.margin_s)
        if kind.private or self._policy.compare_all:
            self._compare(self._origin.of(kind, key, owner), members)
        self._put(kind, key, owner, _decoded(kind, members), as_of_ns)
        return Outcome.ADOPTED

    def _compare(self, changed_s: Mapping[str, float], members: Mapping[str, Member]) -> None:
        for name, member in members.items():
            if member.written_ns <= (changed_s[name] + self._policy.margin_s) * NS_PER_S:
                raise Skipped(Outcome.OLDER_THAN_ORIGIN, name)

    def _put(
        self, kind: Kind, key: EntryKey, owner: str, fields: Mapping[str, Tensor], as_of_ns: int
    ) -> None:
        as_of = _EPOCH + timedelta(microseconds=as_of_ns // 1000)
        # A person's owner is the person, which the daemon knows.
        said = "" if kind.subject is Subject.USER else owner
        options = PutOptions(owner_id=said, as_of=as_of)
        try:
            is_kept = self._stored(key, fields, options)
        except Aborted as exc:
            outcome = Outcome.OUTDATED if exc.sources_from is None else Outcome.CHANGES_UNKNOWN
            raise Skipped(outcome, exc.message) from exc
        except InvalidRequest as exc:
            raise Skipped(Outcome.REFUSED, str(exc)) from exc
        except Overloaded as exc:
            too_large = exc.reason == "ENTRY_TOO_LARGE"
            outcome = Outcome.TOO_LARGE if too_large else Outcome.NO_ROOM
            raise Skipped(outcome, str(exc)) from exc
        except NotDurable as exc:
            raise Skipped(Outcome.NO_ROOM, str(exc)) from exc
        if not is_kept:
            raise Skipped(Outcome.NO_ROOM, "L2 takes no entry: it would be in L1 only")

    def _stored(self, key: EntryKey, fields: Mapping[str, Tensor], options: PutOptions) -> bool:
        """Put the entry, or have the Put judged; return whether L2 has, or would have, it."""
        if self._policy.dry_run:
            return self._client.check_put(*key, fields, options=options)
        self._client.put(*key, fields, options=options)
        tiers = self._client.inspect(*key).tiers
        return any(found.tier is Tier.DISK for found in tiers)


def _decoded(kind: Kind, members: Mapping[str, Member]) -> dict[str, Tensor]:
    """Return the fields, read by the daemon's decoders, which execute nothing."""
    fields = {}
    for field in kind.fields:
        try:
            tensor = codec.decode_member(field, members[field.name].data)
        except OriginDataCorrupt as exc:
            raise Skipped(Outcome.REFUSED, f"{field.name}: {exc.message}") from exc
        # The client cuts data into chunks by bytes.
        data = memoryview(tensor.data).cast("B") if tensor.size_bytes else b""
        fields[field.name] = replace(tensor, data=data)
    return fields
