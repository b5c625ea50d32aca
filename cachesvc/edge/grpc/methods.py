"""The table of gRPC methods, each with the action that its caller must be allowed.

No method is served without an action; a method that is not in the table is UNIMPLEMENTED.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any, TypeAlias

import grpc
from google.protobuf.message import DecodeError, Message
from grpc_health.v1 import health, health_pb2
from grpc_reflection.v1alpha import reflection, reflection_pb2

from cachesvc.core.access import Action, Principal, action_of
from cachesvc.core.errors import CacheError, InvalidRequest, Overloaded
from cachesvc.core.scopes import ScopeKind
from cachesvc.edge.grpc.callers import Who
from cachesvc.edge.grpc.calls import Admit, Calls, Context, abort
from cachesvc.edge.grpc.inline import serialize_entries
from cachesvc.edge.grpc.service import CacheService
from cachesvc_proto.v1 import cache_pb2 as pb

SERVICE_NAME = pb.DESCRIPTOR.services_by_name["CacheService"].full_name
HEALTH_NAME = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
ActionOf = Callable[[Any], Action]
# Parsing holds up every other call: 256 KiB of empty elements take 6 ms, 2 MiB 55 ms. So no
# stranger's request is parsed, and only a request that lists keys may be long: 1000 keys or hits of
# the longest ids have 171 KB.
MAX_REQUEST_BYTES = 16 << 10
MAX_WARM_BYTES = 256 << 10
MAX_REPORT_BYTES = 256 << 10
# A target missing from this table cannot be requested by any role.
_SCOPES = {
    "user_id": ScopeKind.USER,
    "clothing_id": ScopeKind.CLOTHING,
    "owner_id": ScopeKind.OWNER,
    "key": ScopeKind.KEY,
    "namespace": ScopeKind.NAMESPACE,
    "everything": ScopeKind.EVERYTHING,
    None: ScopeKind.KEY,  # no target: refused as invalid for callers that may name a key
}


def cache_methods(service: CacheService, calls: Calls, who: Who) -> dict[str, Handler]:
    """Return CacheService's methods for a listener on which `who` says who calls."""

    def parsed(request: Any, action_of_request: Action | ActionOf, most: int) -> Admit[bytes, Any]:
        return _admitting(who, request.FromString, action_of_request, most)

    def entries(rpc: str, handle: Any, request: Any) -> Handler:
        return grpc.unary_unary_rpc_method_handler(
            calls.unary(rpc, handle, parsed(request, _action_of_get, MAX_REQUEST_BYTES)),
            response_serializer=serialize_entries,
        )

    def unary(
        rpc: str,
        handle: Any,
        request: Any,
        action: Action | ActionOf,
        most: int = MAX_REQUEST_BYTES,
    ) -> Handler:
        return grpc.unary_unary_rpc_method_handler(
            calls.unary(rpc, handle, parsed(request, action, most)), response_serializer=_serialize
        )

    def streaming(
        rpc: str, handle: Any, request: Any, action: Action, most: int = MAX_REQUEST_BYTES
    ) -> Handler:
        return grpc.unary_stream_rpc_method_handler(
            calls.streaming(rpc, handle, parsed(request, action, most)),
            response_serializer=_serialize,
        )

    return {
        "GetHuman": entries("GetHuman", service.get_human, pb.GetHumanRequest),
        "GetGarment": entries("GetGarment", service.get_garment, pb.GetGarmentRequest),
        "GetText": entries("GetText", service.get_text, pb.GetTextRequest),
        "GetTryOn": entries("GetTryOn", service.get_try_on, pb.GetTryOnRequest),
        "Get": streaming("Get", service.get, pb.GetRequest, Action.READ),
        # Each message is parsed when the handler reads it: the caller is known by then.
        "Put": grpc.stream_unary_rpc_method_handler(
            calls.unary("Put", service.put, _admitting_stream(who, pb.PutRequest, Action.PUT)),
            response_serializer=_serialize,
        ),
        "Invalidate": unary(
            "Invalidate", service.invalidate, pb.InvalidateRequest, _action_of_invalidate
        ),
        "Warm": streaming("Warm", service.warm, pb.WarmRequest, Action.WARM, MAX_WARM_BYTES),
        "Inspect": unary("Inspect", service.inspect, pb.InspectRequest, Action.FIND),
        "Stats": unary("Stats", service.stats, pb.StatsRequest, Action.OBSERVE),
        "Attach": unary("Attach", service.attach, pb.AttachRequest, Action.READ),
        "ReportHits": unary(
            "ReportHits", service.report_hits, pb.ReportHitsRequest, Action.READ, MAX_REPORT_BYTES
        ),
    }


def health_methods(servicer: health.aio.HealthServicer, who: Who) -> dict[str, Handler]:
    """Return the health service's methods: every known caller may probe."""
    return {
        "Check": grpc.unary_unary_rpc_method_handler(
            _probed(servicer.Check, who),
            response_serializer=_serialize,
        ),
        # `Watch` writes its answers itself and is no generator.
        "Watch": grpc.unary_stream_rpc_method_handler(
            _probed(servicer.Watch, who),
            response_serializer=_serialize,
        ),
    }


def reflection_methods(who: Who) -> dict[str, Handler]:
    """Return the reflection service's method: every known caller may ask."""
    servicer = reflection.aio.ReflectionServicer(
        (SERVICE_NAME, HEALTH_NAME, reflection.SERVICE_NAME)
    )

    parse = reflection_pb2.ServerReflectionRequest.FromString

    async def info(received: Any, context: Context) -> AsyncIterator[Any]:
        try:
            who(context).check(Action.PROBE)
            requests = _each_parsed(parse, received)
            async for answer in servicer.ServerReflectionInfo(requests, context):
                yield answer
        except CacheError as exc:
            await abort(context, exc)

    return {
        "ServerReflectionInfo": grpc.stream_stream_rpc_method_handler(
            info, response_serializer=_serialize
        )
    }


def _admitting(
    who: Who, parse: Callable[[bytes], Any], action: Action | ActionOf, most: int
) -> Admit[bytes, Any]:
    """Return a unary method's checks, in order: caller, size, message, permission."""
    action_of_request: ActionOf = (lambda _: action) if isinstance(action, Action) else action

    def admit(received: bytes, context: Context) -> tuple[Principal, Any]:
        principal = who(context)
        if len(received) > most:
            raise Overloaded(
                f"a request of this method may have at most {most} bytes",
                reason="REQUEST_TOO_LARGE",
            )
        request = _parsed(parse, received)
        principal.check(action_of_request(request))
        return principal, request

    return admit


def _admitting_stream(who: Who, request: Any, action: Action) -> Admit[Any, Any]:
    def admit(received: Any, context: Context) -> tuple[Principal, Any]:
        principal = who(context)
        principal.check(action)
        return principal, _each_parsed(request.FromString, received)

    return admit


async def _each_parsed(
    parse: Callable[[bytes], Any], received: AsyncIterator[bytes]
) -> AsyncIterator[Any]:
    async for message in received:
        yield _parsed(parse, message)


def _parsed(parse: Callable[[bytes], Any], received: bytes) -> Any:
    """Return the message. If gRPC parsed it, garbage would count as our defect.

    Raises:
        InvalidRequest: `received` is no such message.
    """
    try:
        return parse(received)
    except DecodeError as exc:
        raise InvalidRequest(
            "the bytes are not a message of this method", reason="INVALID_MESSAGE"
        ) from exc


def _action_of_get(request: Any) -> Action:
    """Return a Get's action: without bytes it only finds."""
    return Action.FIND if request.delivery == pb.DELIVERY_NONE else Action.READ


def _action_of_invalidate(request: pb.InvalidateRequest) -> Action:
    target = request.WhichOneof("target")
    if target == "everything" and not request.everything:
        target = None
    return action_of(_SCOPES[target])


def _probed(handle: Callable[[Any, Context], Any], who: Who) -> Any:
    """Wrap a method of grpc's health service: every known caller may call it."""

    async def call(received: bytes, context: Context) -> Any:
        try:
            who(context).check(Action.PROBE)
            request = _parsed(health_pb2.HealthCheckRequest.FromString, received)
        except CacheError as exc:
            await abort(context, exc)
        return await handle(request, context)

    return call


def _serialize(message: Message) -> bytes:
    return message.SerializeToString()
