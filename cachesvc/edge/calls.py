"""What every call has in common: who may, counting, a deadline, and errors as statuses."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any, NoReturn, TypeVar

import grpc
import structlog

from cachesvc.core.access import Principal
from cachesvc.core.call_tally import CallTally, RpcTally
from cachesvc.core.errors import CacheError, Draining
from cachesvc.edge.statuses import OUTCOMES, Code, code_of, trailing_metadata
from cachesvc_proto.v1 import cache_pb2 as pb

log = structlog.get_logger()
Q = TypeVar("Q")
A = TypeVar("A")
Context = grpc.aio.ServicerContext[Any, Any]
RPCS = tuple(method.name for method in pb.DESCRIPTOR.services_by_name["CacheService"].methods)
R = TypeVar("R")
# From what came over the wire (bytes, or a stream) to who calls and with what request.
# Raises Unauthenticated before it parses anything, then PermissionDenied.
Admit = Callable[[R, Context], tuple[Principal, Q]]
# A local Get, a hit inline, L2, the origin.
LATENCY_BOUNDS_S = (0.002, 0.02, 0.2, 2.0)
# The caller's deadline comes before ours, and its RST then looks like a cancel: ours starts when
# the call arrives, and gRPC rounds it up for the wire, by at most 100 ms below a deadline of 100 s.
LATE_WITHIN_S = 0.15


class DeadlineExceeded(CacheError):
    """The caller named no deadline and the default one passed, or it does not read its stream."""

    default_reason = "DEADLINE"


_DEFECT = CacheError("the daemon failed; its log says how")


class Calls:
    """Counts the calls under way, because grpc.aio's own stop does not wait for their end."""

    def __init__(self, default_deadline_s: float, stream_stall_s: float) -> None:
        self._default_deadline_s = default_deadline_s
        self._stream_stall_s = stream_stall_s
        self._running = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._draining = False
        self.tally = CallTally(
            RPCS,
            {code.name: outcome for code, outcome in OUTCOMES.items()},
            LATENCY_BOUNDS_S,
        )

    @property
    def running(self) -> int:
        return self._running

    async def drain(self, deadline_s: float) -> bool:
        """Refuse new calls and wait for the others. Returns whether all ended in time."""
        self._draining = True
        try:
            await asyncio.wait_for(self._idle.wait(), deadline_s)
        except TimeoutError:
            return False
        return True

    def unary(
        self, rpc: str, handle: Callable[[Q, Principal], Awaitable[A]], admit: Admit[R, Q]
    ) -> Callable[[R, Context], Awaitable[A]]:
        """Wrap a handler with one answer."""

        async def serve(received: R, context: Context) -> A:
            caller, request = admit(received, context)
            self._check_not_draining()
            # A context manager costs 10 us on the path of a worker's first Get.
            if context.time_remaining() is not None:
                return await handle(request, caller)
            async with self._default_deadline(context):
                return await handle(request, caller)

        return self._counted(rpc, serve)

    def streaming(
        self,
        rpc: str,
        handle: Callable[[Q, Principal], AsyncGenerator[A, None]],
        admit: Admit[R, Q],
    ) -> Callable[[R, Context], Awaitable[None]]:
        """Wrap a handler with many answers.

        They are written here and not yielded to gRPC: a caller that leaves, or a deadline that
        passes, while a slow reader holds up a message comes up in the write. Of that a
        generator which waits at its `yield` would see nothing but its own end.
        """

        async def serve(received: R, context: Context) -> None:
            caller, request = admit(received, context)
            self._check_not_draining()
            async with (
                self._default_deadline(context),
                aclosing(handle(request, caller)) as answers,
            ):
                # By themselves: gRPC takes those that went with a write that was cut short for
                # unsent, sends them again with the status, and fails.
                await _sent(context.send_initial_metadata(()))
                async for answer in answers:
                    await self._written(context, answer)

        return self._counted(rpc, serve)

    def _counted(
        self, rpc: str, serve: Callable[[R, Context], Awaitable[A]]
    ) -> Callable[[R, Context], Awaitable[A]]:
        """Wrap what answers a call: however that ends, it is counted once and has a status."""
        tally = self.tally.by_rpc[rpc]

        async def call(received: R, context: Context) -> A:
            started = self._begin()
            code, error = Code.INTERNAL, _DEFECT
            try:
                answer = await serve(received, context)
                code = Code.OK
                return answer
            except CacheError as exc:
                # Without its traceback, or it and this frame would keep each other.
                code, error = _code(exc), exc.with_traceback(None)
            except asyncio.CancelledError:
                code = code_of_leaving(context.time_remaining())
                raise
            except Exception:  # a defect: its text may hold ids and paths, so only the log has it
                log.exception("call_failed")
            finally:
                self._end(rpc, tally, code, started)
            # Counted before it is said: a status waits behind the messages that its caller has
            # not read yet, for ever if it never does, and a drain must not.
            return await abort(context, error)

        return call

    def _begin(self) -> float:
        self._running += 1
        self._idle.clear()
        return time.monotonic()

    def _end(self, rpc: str, tally: RpcTally, code: Code, started: float) -> None:
        took_s = time.monotonic() - started
        tally.count(code.name, took_s)
        log.debug("call", rpc=rpc, code=code.name, took_ms=round(took_s * 1e3, 3))
        self._running -= 1
        if not self._running:
            self._idle.set()

    async def _written(self, context: Context, answer: A) -> None:
        """Write a message of a stream. Raises DeadlineExceeded if its caller does not read."""
        try:
            async with asyncio.timeout(self._stream_stall_s):
                await _sent(context.write(answer))
        except TimeoutError as exc:
            raise DeadlineExceeded(
                f"the stream was not read for {self._stream_stall_s:g} s", reason="STREAM_STALLED"
            ) from exc

    def _check_not_draining(self) -> None:
        if self._draining:
            raise Draining("the daemon is shutting down; retry")

    @asynccontextmanager
    async def _default_deadline(self, context: Context) -> AsyncIterator[None]:
        """Bound a call that names no deadline."""
        if context.time_remaining() is not None:
            yield
            return
        try:
            async with asyncio.timeout(self._default_deadline_s):
                yield
        except TimeoutError as exc:
            raise DeadlineExceeded(
                f"no answer within {self._default_deadline_s:g} s; name a deadline to wait longer"
            ) from exc


async def _sent(sending: Awaitable[None]) -> None:
    """Await a write. Raises CancelledError where nobody is there any more to write to."""
    try:
        await sending
    except grpc.aio.BaseError as exc:
        # Before gRPC cancels the call of a caller that left, it lets the write fail.
        raise asyncio.CancelledError from exc


def code_of_leaving(remaining_s: float | None) -> Code:
    """Return what the caller of a cancelled call saw: its own deadline, or its own cancel.

    `remaining_s` is until the deadline as the daemon knows it; None = the caller named none.
    """
    is_late = remaining_s is not None and remaining_s < LATE_WITHIN_S
    return Code.DEADLINE_EXCEEDED if is_late else Code.CANCELLED


def _code(error: CacheError) -> Code:
    return Code.DEADLINE_EXCEEDED if isinstance(error, DeadlineExceeded) else code_of(error)


async def abort(context: Context, error: CacheError) -> NoReturn:
    """End the call with the error's status. Never returns."""
    await context.abort(_code(error), error.message, trailing_metadata(error))
    raise AssertionError("abort returned")
