"""Does the origin allow all that the daemon asks, and do the clocks agree?"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

from cachesvc.app.origins import make_origin
from cachesvc.cli.doctor import origin_fixes
from cachesvc.cli.doctor.findings import Finding, Patient, error, ok, warning
from cachesvc.core.errors import NoSuchObject, OriginDenied, OriginError
from cachesvc.core.origin import DatedOrigin
from cachesvc.origin import reasons
from cachesvc.origin.s3 import S3Origin
from cachesvc.origin.s3_client import credentials_source

# S3 refuses a request whose time differs by more than this.
_SKEW_REFUSED_S = 900
_SET_CLOCK = "set this host's clock: chronyc makestep"


def check_credentials(patient: Patient) -> Iterator[Finding]:
    """Find the link of AWS's chain that has credentials; their values are not shown."""
    if patient.settings.origin.kind != "s3":
        return
    check = "origin.credentials"
    try:
        source = asyncio.run(credentials_source(patient.deadline_s))
        if source is None:
            raise OriginDenied("AWS's chain finds no credentials", reason=reasons.NO_CREDENTIALS)
    except OriginError as exc:
        yield _refused(check, patient, exc, None)
    else:
        yield ok(
            check,
            f"this user's credentials come from {source} ({origin_fixes.source_text(source)}); the "
            "daemon may find others",
        )


def check_access(patient: Patient) -> Iterator[Finding]:
    """Ask for the bucket, for an absent object, and for the object that the user named."""
    yield from asyncio.run(_with_origin(patient, _access))


def check_clock(patient: Patient) -> Iterator[Finding]:
    """Compare this host's clock with the origin's: the daemon compares times of both."""
    if patient.settings.origin.kind == "s3":
        yield from asyncio.run(_with_origin(patient, _clock))


async def _with_origin(
    patient: Patient,
    ask: Callable[[Patient, DatedOrigin], Awaitable[list[Finding]]],
) -> list[Finding]:
    async with _opened(patient) as origin:
        return await ask(patient, origin)


@asynccontextmanager
async def _opened(patient: Patient) -> AsyncIterator[DatedOrigin]:
    deadline_s = min(patient.deadline_s, patient.settings.origin.deadline_s)
    settings = patient.settings.origin.model_copy(
        update={"deadline_s": deadline_s, "added_latency_ms": 0.0}
    )
    origin = make_origin(settings, patient.settings.limits.max_entry_bytes)
    try:
        yield origin
    finally:
        await origin.close()


async def _access(patient: Patient, origin: DatedOrigin) -> list[Finding]:
    listed = await _problem_of(origin.check())
    if listed is not None and not _is_a_missing_permission(listed):
        return [_refused("origin.access", patient, listed, await _source(patient))]
    if patient.settings.origin.kind != "s3":
        return [_not_s3(patient, listed)]
    # No object has this id: a worker will get the same answer for an absent object.
    absent = f"users/cachesvc-doctor-{secrets.token_hex(8)}/vton-cache/upper/mask.png"
    found = [_absent(patient, listed, await _problem_of(origin.stamp(absent)))]
    if patient.object_key:
        found.append(_present(patient, await _problem_of(origin.stamp(patient.object_key))))
    return found


def _is_a_missing_permission(problem: OriginError | NoSuchObject) -> bool:
    """Return whether S3 denied this one action; a disabled account has the same reason."""
    return problem.reason == reasons.ACCESS_DENIED and (
        "(AccessDenied)" in problem.message or "HTTP 403" in problem.message
    )


async def _problem_of(asked: Awaitable[object]) -> OriginError | NoSuchObject | None:
    try:
        await asked
    except (OriginError, NoSuchObject) as exc:
        return exc
    return None


def _not_s3(patient: Patient, problem: OriginError | NoSuchObject | None) -> Finding:
    origin = patient.settings.origin
    where = origin.path or origin.kind
    if problem is None:
        return ok("origin.access", f"{where} can be read")
    return error("origin.access", f"{where}: {problem.message}", "let the daemon's user read it")


def _absent(
    patient: Patient,
    listed: OriginError | NoSuchObject | None,
    absent: OriginError | NoSuchObject | None,
) -> Finding:
    bucket = patient.settings.origin.bucket
    if isinstance(absent, NoSuchObject):
        return ok("origin.access", f"bucket {bucket}: S3 says whether an object is absent")
    if absent is None:
        return error(
            "origin.access",
            f"bucket {bucket}: an object of a name that nobody has is there, so what answers is "
            f"not S3; {origin_fixes.endpoint_of(patient.settings.origin)}",
            "set origin.endpoint_url to an S3 store",
        )
    if _is_a_missing_permission(absent):
        if listed is None:
            return error(
                "origin.access",
                f"bucket {bucket} may be listed, but no object may be read: {absent.message}",
                origin_fixes.allow_get(bucket),
            )
        return error(
            "origin.access",
            f"bucket {bucket}: without s3:ListBucket S3 answers 403 for an absent object too, so "
            "a Get of a person who is not preprocessed fails with ORIGIN_ACCESS_DENIED and never "
            "with NOT_FOUND; --object KEY checks whether an existing object may be read. S3 said: "
            f"{listed.message}",
            f"{origin_fixes.allow_list(bucket)}; {origin_fixes.allow_get(bucket)}",
        )
    return _refused("origin.access", patient, absent, None)


def _present(patient: Patient, problem: OriginError | NoSuchObject | None) -> Finding:
    check, bucket = "origin.object", patient.settings.origin.bucket
    if problem is None:
        return ok(check, "the object of --object can be read")
    if _is_a_missing_permission(problem):
        message = f"the object of --object may not be read, or does not exist: {problem.message}"
        return error(check, message, origin_fixes.allow_get(bucket))
    return _refused(check, patient, problem, None)


async def _clock(patient: Patient, origin: DatedOrigin) -> list[Finding]:
    assert isinstance(origin, S3Origin)
    try:
        server = await origin.server_time()
    except OriginError as exc:
        return [_refused("origin.clock", patient, exc, None)]
    if server is None:
        return [ok("origin.clock", "the origin's answer has no date")]
    return [skew_finding((datetime.now(UTC) - server).total_seconds(), patient)]


def skew_finding(ahead_s: float, patient: Patient) -> Finding:
    """Return the finding for a difference between this host's clock and the origin's.

    The origin's time has whole seconds: up to one second is not skew.
    """
    check, grace_s = "origin.clock", patient.settings.origin.origin_after_grace_s
    apart_s = max(0.0, -ahead_s, ahead_s - 1.0)
    said = f"this host's clock is {apart_s:.0f} s {'ahead of' if ahead_s > 0 else 'behind'} S3's"
    if apart_s > _SKEW_REFUSED_S:
        return error(check, f"{said}: S3 refuses its requests", _SET_CLOCK)
    if apart_s > max(grace_s, 1.0):
        return warning(
            check,
            f"{said}: the daemon compares times of both (origin_after, as_of, changed_at), with a "
            f"grace of {grace_s:g} s",
            "run chrony or systemd-timesyncd here and on the backend's hosts",
        )
    return ok(check, f"this host's clock and S3's differ by {apart_s:.0f} s")


async def _source(patient: Patient) -> str | None:
    try:
        return await credentials_source(patient.deadline_s)
    except OriginError:
        return None


def _refused(
    check: str, patient: Patient, problem: OriginError | NoSuchObject, source: str | None
) -> Finding:
    origin = patient.settings.origin
    return error(
        check,
        origin_fixes.message_of(problem, origin),
        origin_fixes.fix_for(problem, origin, source),
    )
