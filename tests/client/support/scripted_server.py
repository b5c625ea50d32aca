"""A gRPC server over `MemoryService` that misbehaves as a test tells it to.

Handlers take and return bytes, so a test decides every byte of an answer. A step is queued for a
method, and the method's next call uses it; without a step the service answers.
"""

from __future__ import annotations

import threading
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType

import grpc

from cachesvc_client.requests import SERVICE
from cachesvc_client.testing import MemoryService

Step = Callable[[bytes, grpc.ServicerContext], bytes]


def refuse(
    code: grpc.StatusCode, message: str, metadata: tuple[tuple[str, str | bytes], ...] = ()
) -> Step:
    """Answer with a status and exactly this trailing metadata."""

    def step(_: bytes, context: grpc.ServicerContext) -> bytes:
        context.set_trailing_metadata(metadata)
        context.abort(code, message)

    return step


def reply(answer: bytes) -> Step:
    """Answer with these bytes."""
    return lambda _request, _context: answer


class Hold:
    """Shows a test that a call has arrived, and holds the call until the test releases it."""

    def __init__(self) -> None:
        self.arrived = threading.Event()
        self.ended = threading.Event()
        self._go = threading.Event()

    def __call__(self, _: bytes, context: grpc.ServicerContext) -> bytes:
        context.add_callback(self.ended.set)
        self.arrived.set()
        self._go.wait(30)
        return b""

    def release(self) -> None:
        self._go.set()


class ScriptedServer:
    """Listens on a unix socket; a test may stop it and start it again at the same path."""

    def __init__(self, socket: Path, service: MemoryService | None = None) -> None:
        self.target = f"unix:{socket}"
        self.service = service or MemoryService()
        self.calls: list[str] = []
        self._steps: dict[str, deque[Step]] = defaultdict(deque)
        self._server: grpc.Server | None = None
        self._pool: ThreadPoolExecutor | None = None

    def __enter__(self) -> ScriptedServer:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def script(self, method: str, *steps: Step) -> None:
        """Queue steps for the next calls of `method`."""
        self._steps[method].extend(steps)

    def start(self) -> None:
        self._pool = ThreadPoolExecutor(8)
        self._server = grpc.server(
            self._pool, options=[("grpc.max_send_message_length", -1), ("grpc.so_reuseport", 0)]
        )
        handlers: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {
            **{m: grpc.unary_unary_rpc_method_handler(self._unary(m)) for m in self._methods()},
            **{
                m: grpc.unary_stream_rpc_method_handler(self._stream(m))
                for m in self.service.stream_methods
            },
            "Put": grpc.stream_unary_rpc_method_handler(self._put),
        }
        generic = grpc.method_handlers_generic_handler(SERVICE, handlers)
        self._server.add_generic_rpc_handlers((generic,))
        self._server.add_insecure_port(self.target)
        self._server.start()

    def stop(self) -> None:
        """Break every connection; calls under way end without an answer."""
        if self._server is not None and self._pool is not None:
            self._server.stop(grace=None).wait()
            self._pool.shutdown()
            self._server = None

    def _methods(self) -> tuple[str, ...]:
        return self.service.unary_methods

    def _unary(self, method: str) -> Step:
        def handle(request: bytes, context: grpc.ServicerContext) -> bytes:
            self.calls.append(method)
            if self._steps[method]:
                return self._steps[method].popleft()(request, context)
            with refusals_as_statuses(context):
                return self.service.answer(method, request)

        return handle

    def _stream(self, method: str) -> Callable[[bytes, grpc.ServicerContext], Iterator[bytes]]:
        def handle(request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
            self.calls.append(method)
            if self._steps[method]:
                yield self._steps[method].popleft()(request, context)
                return
            with refusals_as_statuses(context):
                yield from self.service.stream(method, request)

        return handle

    def _put(self, messages: Iterator[bytes], context: grpc.ServicerContext) -> bytes:
        self.calls.append("Put")
        if self._steps["Put"]:
            return self._steps["Put"].popleft()(next(messages), context)
        with refusals_as_statuses(context):
            return self.service.put(messages)


class refusals_as_statuses:  # noqa: N801 - used as a statement
    """Turns a Refusal of the service into a status with its metadata."""

    def __init__(self, context: grpc.ServicerContext) -> None:
        self._context = context

    def __enter__(self) -> None:
        return None

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        from cachesvc_client._memory_service import Refusal

        if isinstance(error, Refusal):
            self._context.set_trailing_metadata(error.metadata)
            self._context.abort(error.code, error.message)
