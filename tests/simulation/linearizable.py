"""Does promise 1 allow a history of Gets, Puts and Invalidates?

Wing and Gong's search, with Lowe's memory of what was tried, looks for an order of the calls,
each at one moment between its start and its answer, in which a small model answers as the
cache did. Each key is judged alone. An Invalidate of a user, an owner or a namespace counts as
one call on each key that it covers: no promise says that all of them are invalidated at once.

The model of one key knows which sources may be served, and which sources may be put:

- A source is read, at a known moment: from then on it may be served.
- Get serves a source that may be served. After it, sources that were read earlier from the
  same owner's prefix may not be served: no Get goes back behind what another Get was served.
  An answer that was published to no tier (half an upload, a stale entry) excludes nothing. Nor
  does any Get of a key that is asked for without an owner: such Gets have a flight of their
  own, and of two flights the one that lands later may have read first.
- Get answers NOT_FOUND: an absence that was read may be served.
- Put: only its source, and sources that are read later, may be served. Its source must have
  been read after the last Invalidate, and if it names `as_of`, after every stored Put's source.
- Invalidate: no source that was read so far may be served or put. An Invalidate of an owner
  excludes only sources from that owner's prefix.

Evictions, expiry and restarts need no rule: served bytes need a source, and a source that is
read now may always be served. A call that failed, or that a crash cut off, took effect at some
moment before its end, or never. `judge` also checks rules that are not about the order:
`origin_after`, that fills of one key and owner do not run side by side (promise 4), and that
the origin's error answers no Get of an entry that L2 holds (promise 8).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from cachesvc.core.keys import EntryKey
from tests.simulation.history import FOREVER, Call, History, Overlap, Source

# (sources that may be served, sources that may be put, the moment of the newest that was put)
State = tuple[frozenset[Source], frozenset[Source], int]
EMPTY: State = (frozenset(), frozenset(), 0)


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """One operation on one key. It takes effect once in [began, ended]; if `optional`, maybe never.

    `binds`: no Get goes back behind this one.
    """

    began: int
    ended: int
    optional: bool
    call: Call | None
    source: Source | None = None
    binds: bool = True

    def apply(self, state: State) -> State | None:
        """Return the state after this step; None if the model does not allow it."""
        if self.call is None:
            assert self.source is not None
            return _read(state, self.source)
        if self.call.kind == "get":
            return _get(state, self.call, binds=self.binds)
        return {"put": _put, "invalidate": _invalidate}[self.call.kind](state, self.call)


def _read(state: State, source: Source) -> State:
    served, put, newest = state
    if source.is_put:
        return served, put | {source}, newest
    return served | {source}, put, newest


def _get(state: State, call: Call, *, binds: bool) -> State | None:
    served, put, newest = state
    if call.found_absent:
        # A Get without an owner asks for the cached entry's owner.
        told = any(s.is_absent and call.owner in ("", s.owner) for s in served)
        return state if told else None
    source = call.source
    assert source is not None
    if source not in served:
        return None
    if not binds:
        return state
    older = {s for s in served if s.owner == source.owner and s.moment < source.moment}
    return served - older, put, newest


def _put(state: State, call: Call) -> State | None:
    _, put, newest = state
    source = call.source
    assert source is not None
    if source not in put or (source.named and source.moment < newest):
        return None
    return frozenset({source}), put, max(newest, source.moment)


def _invalidate(state: State, call: Call) -> State:
    served, put, newest = state
    scope = call.scope
    assert scope is not None
    kept = frozenset(s for s in served if not scope.covers(s.key, s.owner))
    return kept, frozenset(s for s in put if not scope.covers(s.key, s.owner)), newest


# ---- from a history to the steps of one key


def steps_of(history: History, key: EntryKey) -> list[Step]:
    """Return the steps of `key`. Sources that no call was served or put are left out."""
    calls = [call for call in history.calls if _concerns(call, key)]
    named = {call.source for call in calls if call.source is not None}
    absences_matter = any(call.found_absent for call in calls)
    steps = [
        Step(source.moment, source.moment, False, None, source)
        for source in history.sources.values()
        if source.key == key and (source in named or (absences_matter and source.is_absent))
    ]
    ownerless = any(c.kind == "get" and c.key == key and not c.owner for c in history.calls)
    for call in calls:
        may_not_happen = not (call.is_done or call.found_absent)
        binds = call.is_kept and not ownerless
        steps.append(Step(call.began, call.ended, may_not_happen, call, binds=binds))
    return sorted(steps, key=lambda step: step.began)


def _concerns(call: Call, key: EntryKey) -> bool:
    if call.kind == "invalidate":
        assert call.scope is not None
        # An owner's Invalidate covers every key; the sources say whose bytes a key has.
        return call.scope.covers(key, None)
    if call.key != key:
        return False
    if call.source is not None:
        return call.kind == "put" or call.is_done
    return call.found_absent


# ---- the search


def is_linearizable(steps: list[Step]) -> bool:
    """Return whether there is an order that the model allows. `steps` are sorted by their start."""
    done_mask, state = 0, EMPTY
    needed = sum(1 << index for index, step in enumerate(steps) if not step.optional)
    tried: set[tuple[int, State]] = set()
    branches: list[Iterator[tuple[int, State]]] = [_next(steps, done_mask, state)]
    while branches:
        found = next(branches[-1], None)
        if found is None:
            branches.pop()
        elif found[0] & needed == needed:
            return True
        elif found not in tried:
            tried.add(found)
            branches.append(_next(steps, *found))
    return not needed


def _next(steps: list[Step], done_mask: int, state: State) -> Iterator[tuple[int, State]]:
    """Yield the steps that may come next: those that began before any remaining step ended."""
    pending = [(i, step) for i, step in enumerate(steps) if not done_mask >> i & 1]
    must_end = min((step.ended for _, step in pending if not step.optional), default=FOREVER)
    for index, step in pending:
        if step.began > must_end:
            return
        if step.ended < _latest_start(steps, done_mask):
            continue
        after = step.apply(state)
        if after is not None:
            yield done_mask | 1 << index, after


def _latest_start(steps: list[Step], done_mask: int) -> int:
    """Return when the latest done step began: a step that ended before that cannot follow."""
    highest = done_mask.bit_length() - 1
    return steps[highest].began if done_mask else 0


# ---- the whole judgement


@dataclass(frozen=True, slots=True)
class Violation:
    """Why a history is not allowed."""

    key: EntryKey | None
    what: str
    steps: tuple[str, ...] = ()

    def __str__(self) -> str:
        return "\n".join([f"{self.key}: {self.what}", *self.steps])


def judge(history: History, grace_ns: int) -> list[Violation]:
    """Return the violations of a history; none if all of it is allowed."""
    found = []
    keys = sorted({call.key for call in history.calls if call.key is not None})
    for key in keys:
        steps = steps_of(history, key)
        if not is_linearizable(steps):
            text = tuple(_describe(step) for step in steps)
            found.append(Violation(key, "no order of these calls explains what was served", text))
    for call in history.calls:
        if call.was_held and not _was_changed_during(history, call):
            what = f"L2 holds it, and a Get was answered {call.error}"
            found.append(Violation(call.key, what, (f"{call.began}-{call.ended}",)))
        source = call.source
        if source is None or not call.needed_ns:
            continue
        text = (f"needed {call.needed_ns}, served {source}",)
        # A Put from a host whose clock is ahead dates its source too late; no one can notice.
        if max(source.changed_ns, source.true_ns) + grace_ns < call.needed_ns:
            found.append(Violation(call.key, "older than origin_after", text))
        # A stored time that is later than now proves nothing: the origin must be asked.
        if source.changed_ns > call.shown_ns and not _was_asked(history, call, source):
            found.append(Violation(call.key, "from later than now, for origin_after", text))
    return found + [_describe_overlap(overlap) for overlap in needless_overlaps(history)]


def _was_changed_during(history: History, get: Call) -> bool:
    """Return whether a change of the key ran beside the Get, and so may have hidden L2's entry."""
    assert get.key is not None
    return any(
        call.began < get.ended
        and call.ended > get.began
        and (call.scope.covers(get.key, None) if call.scope else call.kind == "put")
        for call in history.calls
        if call.scope or call.key == get.key
    )


def _was_asked(history: History, call: Call, answer: Source) -> bool:
    """Return whether the origin was asked during the call, or a Put brought the entry then."""
    return answer.moment > call.began or any(
        (source.key, source.owner) == (answer.key, answer.owner) and not source.is_put
        for moment, source in history.sources.items()
        if call.began < moment < call.ended
    )


def needless_overlaps(history: History) -> list[Overlap]:
    """Return where two fills of a key and owner ran side by side without a reason.

    A reason is a call that makes the older fill useless (Invalidate, Put, `origin_after`), or a
    Get without an owner, which has a flight of its own.
    """
    return [
        overlap
        for overlap in history.overlaps
        if not any(
            call.began < overlap.second and call.ended > overlap.first
            for call in history.calls
            if _may_start_another(call, overlap.key)
        )
    ]


def _may_start_another(call: Call, key: EntryKey) -> bool:
    if call.scope is not None:
        return call.scope.covers(key, None)
    return call.key == key and (call.kind == "put" or bool(call.needed_ns) or not call.owner)


def _describe_overlap(overlap: Overlap) -> Violation:
    what = f"{overlap.owner}'s objects are read at {overlap.first} and again at {overlap.second}"
    return Violation(overlap.key, what)


def _describe(step: Step) -> str:
    if step.call is None:
        source = step.source
        assert source is not None
        what = "put's source" if source.is_put else "absent" if source.is_absent else "read"
        return f"{step.began:5} {what} {source.moment} of {source.owner or '-'}"
    call = step.call
    what = f"{call.source.moment}" if call.source else "absent" if call.found_absent else ""
    scope = f"{call.scope.kind.value} {call.scope.value}" if call.scope else ""
    error = call.error or ("" if call.is_done else "unknown")
    end = step.ended if step.ended < FOREVER else ""
    return f"{step.began:5}-{end:5} {call.kind} {scope} {what} {error}"
