"""Tracing libraries, switched on as their own documents say.

Each replaces gRPC's constructors of channels and servers in the whole process, and then wraps every
call. Datadog's library is large, so its interceptor stands here, in the same shape: a proxy around
the call. `generators` returns what gRPC permits and nothing else: a call with one answer is awaited
at once, and a stream is a plain generator.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import grpc
import grpc.aio
import wrapt

CONSTRUCTORS = ("insecure_channel", "secure_channel", "server")
TRACERS = ("opentelemetry", "sentry", "datadog", "generators")


class Tracing:
    """One library, until `end`."""

    def __init__(self, name: str) -> None:
        self._undo: list[Callable[[], None]] = []
        for module in (grpc, grpc.aio):
            for constructor in CONSTRUCTORS:
                self._remember(module, constructor)
        getattr(self, f"_{name}")()

    def end(self) -> None:
        for undo in self._undo:
            undo()

    def _remember(self, module: Any, name: str) -> None:
        original = getattr(module, name)
        self._undo.append(lambda: setattr(module, name, original))

    def _opentelemetry(self) -> None:
        from opentelemetry.instrumentation import grpc as instrumentation

        def hook(*_: object) -> None:
            """Be called: without a hook the library skips some of its steps."""

        for client in (
            instrumentation.GrpcInstrumentorClient(),
            instrumentation.GrpcAioInstrumentorClient(),
        ):
            client.instrument(request_hook=hook, response_hook=hook)
            self._undo.insert(0, client.uninstrument)
        for server in (
            instrumentation.GrpcInstrumentorServer(),
            instrumentation.GrpcAioInstrumentorServer(),
        ):
            server.instrument()
            self._undo.insert(0, server.uninstrument)

    def _sentry(self) -> None:
        from sentry_sdk.integrations.grpc import GRPCIntegration

        # What `sentry_sdk.init(integrations=[GRPCIntegration()])` does with gRPC.
        GRPCIntegration.setup_once()

    def _datadog(self) -> None:
        self._intercept((_Proxying(),), (_ProxyingUnary(), _ProxyingStream()))

    def _generators(self) -> None:
        self._intercept((_Generating(),), (_GeneratingUnary(), _GeneratingStream()))

    def _intercept(self, ours: tuple[Any, ...], aio: tuple[Any, ...]) -> None:
        for name in CONSTRUCTORS[:2]:
            made, made_aio = getattr(grpc, name), getattr(grpc.aio, name)
            setattr(
                grpc, name, lambda *a, made=made, **k: grpc.intercept_channel(made(*a, **k), *ours)
            )
            setattr(grpc.aio, name, lambda *a, made=made_aio, **k: made(*a, interceptors=aio, **k))


class _Proxy(wrapt.ObjectProxy):
    """A call that looks at each message, as Datadog's does."""

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        return next(self.__wrapped__)


class _Proxying(
    grpc.UnaryUnaryClientInterceptor,
    grpc.UnaryStreamClientInterceptor,
    grpc.StreamUnaryClientInterceptor,
):
    def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
        return _Proxy(continuation(details, request))

    intercept_unary_stream = intercept_stream_unary = intercept_unary_unary


class _ProxyingUnary(grpc.aio.UnaryUnaryClientInterceptor, grpc.aio.StreamUnaryClientInterceptor):
    async def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
        call = await continuation(details, request)
        await call.code()
        return call

    intercept_stream_unary = intercept_unary_unary


class _ProxyingStream(grpc.aio.UnaryStreamClientInterceptor):
    async def intercept_unary_stream(self, continuation: Any, details: Any, request: Any) -> Any:
        return _messages(await continuation(details, request))


async def _messages(call: Any) -> AsyncIterator[Any]:
    async for message in call:
        yield message


class _Answered:
    """A call that has ended, with nothing but its result."""

    def __init__(self, answer: Any) -> None:
        self._answer = answer

    def result(self) -> Any:
        return self._answer


class _Generating(
    grpc.UnaryUnaryClientInterceptor,
    grpc.UnaryStreamClientInterceptor,
    grpc.StreamUnaryClientInterceptor,
):
    def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
        return _Answered(continuation(details, request).result())

    intercept_stream_unary = intercept_unary_unary

    def intercept_unary_stream(self, continuation: Any, details: Any, request: Any) -> Any:
        yield from continuation(details, request)


class _GeneratingUnary(grpc.aio.UnaryUnaryClientInterceptor, grpc.aio.StreamUnaryClientInterceptor):
    async def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
        return await (await continuation(details, request))

    intercept_stream_unary = intercept_unary_unary


class _GeneratingStream(grpc.aio.UnaryStreamClientInterceptor):
    async def intercept_unary_stream(self, continuation: Any, details: Any, request: Any) -> Any:
        return _messages(await continuation(details, request))


if __name__ == "__main__":
    # `python -m tests.support.tracing LIBRARY PYTHON -m cachesvc serve ...`: the daemon, traced.
    import runpy

    Tracing(sys.argv[1])
    sys.argv = sys.argv[4:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
