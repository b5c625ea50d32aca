"""What every call has in common: admission, counting, a deadline, and errors as statuses."""

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
from cachesvc.core.errors import CacheError
from cachesvc.edge.draining import UnderWay
from cachesvc.edge.statuses import (
    DEFECT,
    OUTCOMES,
    Code,
    DeadlineExceeded,
    code_of,
    trailing_metadata,
)
from cachesvc_proto.v1 import cache_pb2 as pb

log = structlog.get_logger()
Q = TypeVar("Q")
A = TypeVar("A")
Context = grpc.aio.ServicerContext[Any, Any]
RPCS = tuple(method.name for method in pb.DESCRIPTOR.services_by_name["CacheService"].methods)
R = TypeVar("R")
# Turns the received bytes or stream into the caller and its request. Raises Unauthenticated before
# it parses anything, and then PermissionDenied.
Admit = Callable[[R, Context], tuple[Principal, Q]]
# For a local Get, an inline hit, L2, the origin.
LATENCY_BOUNDS_S = (0.002, 0.02, 0.2, 2.0)
# Our copy of the deadline fires after the caller's: it starts on arrival, and gRPC rounds it up (by
# <= 100 ms for deadlines under 100 s). So a caller that timed out looks like a caller that
# cancelled; within this margin we count DEADLINE_EXCEEDED.
LATE_WITHIN_S = 0.15


class Calls:
    """Counts the calls under way, because grpc.aio's own stop does not wait for their end."""

    def __init__(self, default_deadline_s: float, stream_stall_s: float) -> None:
        self._default_deadline_s = default_deadline_s
        self._stream_stall_s = stream_stall_s
        self._under_way = UnderWay()
        self.tally = CallTally(
            RPCS,
            {code.name: outcome for code, outcome in OUTCOMES.items()},
            LATENCY_BOUNDS_S,
        )

    async def drain(self, deadline_s: float) -> bool:
        """Refuse new calls and wait for the others. Returns whether all ended in time."""
        return await self._under_way.drain(deadline_s)

    def unary(
        self, rpc: str, handle: Callable[[Q, Principal], Awaitable[A]], admit: Admit[R, Q]
    ) -> Callable[[R, Context], Awaitable[A]]:
        """Wrap a handler with one answer."""

        async def serve(received: R, context: Context) -> A:
            caller, request = admit(received, context)
            self._under_way.check_not_draining()
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

        The answers are written here, not yielded to gRPC: if the caller leaves or the deadline
        passes while a slow reader holds up a message, the write is cancelled. A generator suspended
        at `yield` would see only GeneratorExit, not the cancellation.
        """

        async def serve(received: R, context: Context) -> None:
            caller, request = admit(received, context)
            self._under_way.check_not_draining()
            async with (
                self._default_deadline(context),
                aclosing(handle(request, caller)) as answers,
            ):
                # Send initial metadata separately. If it travels with a write that is cut short,
                # grpc.aio believes it unsent, sends it again with the status, and fails.
                await _sent(context.send_initial_metadata(()))
                async for answer in answers:
                    await self._written(context, answer)

        return self._counted(rpc, serve)

    def _counted(
        self, rpc: str, serve: Callable[[R, Context], Awaitable[A]]
    ) -> Callable[[R, Context], Awaitable[A]]:
        """Wrap a handler so that its call is counted once and has a status, however it ends."""
        tally = self.tally.by_rpc[rpc]

        async def call(received: R, context: Context) -> A:
            self._under_way.begin()
            started = time.monotonic()
            code, error = Code.INTERNAL, DEFECT
            try:
                answer = await serve(received, context)
                code = Code.OK
                return answer
            except CacheError as exc:
                # Drop the traceback; otherwise it and this frame would keep each other alive.
                code, error = code_of(exc), exc.with_traceback(None)
            except asyncio.CancelledError:
                code = code_of_leaving(context.time_remaining())
                raise
            except Exception:  # a defect: its text may hold ids and paths, so only the log has it
                log.exception("call_failed")
            finally:
                self._end(rpc, tally, code, started)
            # The call is counted before its status is sent: the status waits behind the messages
            # that the caller has not read yet, perhaps for ever, and a drain must not wait for it.
            return await abort(context, error)

        return call

    def _end(self, rpc: str, tally: RpcTally, code: Code, started: float) -> None:
        took_s = time.monotonic() - started
        tally.count(code.name, took_s)
        log.debug("call", rpc=rpc, code=code.name, took_ms=round(took_s * 1e3, 3))
        self._under_way.end()

    async def _written(self, context: Context, answer: A) -> None:
        """Write a message of a stream. Raises DeadlineExceeded if its caller does not read."""
        try:
            async with asyncio.timeout(self._stream_stall_s):
                await _sent(context.write(answer))
        except TimeoutError as exc:
            raise DeadlineExceeded(
                f"the stream was not read for {self._stream_stall_s:g} s", reason="STREAM_STALLED"
            ) from exc

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
    """Await a write. Raises CancelledError if the caller has left."""
    try:
        await sending
    except grpc.aio.BaseError as exc:
        # When a caller leaves, gRPC lets the write fail before it cancels the call.
        raise asyncio.CancelledError from exc


def code_of_leaving(remaining_s: float | None) -> Code:
    """Return the status that the caller of a cancelled call saw.

    `remaining_s` is the time until the daemon's copy of the deadline; None = no deadline.
    """
    is_late = remaining_s is not None and remaining_s < LATE_WITHIN_S
    return Code.DEADLINE_EXCEEDED if is_late else Code.CANCELLED


async def abort(context: Context, error: CacheError) -> NoReturn:
    """End the call with the error's status. Never returns."""
    await context.abort(code_of(error), error.message, trailing_metadata(error))
    raise AssertionError("abort returned")
