"""Which methods are there, and what does each of them do to the cache?

The one table of methods for gRPC: a method is served together with its action, or
not at all, so an unknown one is nobody's (UNIMPLEMENTED).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any, TypeAlias

import grpc
from google.protobuf.message import Message
from grpc_health.v1 import health, health_pb2
from grpc_reflection.v1alpha import reflection, reflection_pb2

from cachesvc.core.access import Action, action_of
from cachesvc.core.errors import CacheError
from cachesvc.core.scopes import ScopeKind
from cachesvc.edge.callers import Who, allowed
from cachesvc.edge.calls import Calls, Check, Context, abort
from cachesvc.edge.inline import serialize_entries
from cachesvc.edge.service import CacheService
from cachesvc_proto.v1 import cache_pb2 as pb

SERVICE_NAME = pb.DESCRIPTOR.services_by_name["CacheService"].full_name
HEALTH_NAME = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
# A new kind of scope that is not here can be asked for by nobody.
_SCOPES = {
    "user_id": ScopeKind.USER,
    "clothing_id": ScopeKind.CLOTHING,
    "owner_id": ScopeKind.OWNER,
    "key": ScopeKind.KEY,
    "namespace": ScopeKind.NAMESPACE,
    "everything": ScopeKind.EVERYTHING,
    None: ScopeKind.KEY,  # nothing is named: refused as invalid, to those who may name a key
}


def cache_methods(service: CacheService, calls: Calls, who: Who) -> dict[str, Handler]:
    """Return CacheService's methods for a listener on which `who` says who calls."""

    def entries(rpc: str, handle: Any, request: Any) -> Handler:
        return grpc.unary_unary_rpc_method_handler(
            calls.unary(rpc, handle, _get_check(who)),
            request_deserializer=request.FromString,
            response_serializer=serialize_entries,
        )

    def unary(rpc: str, handle: Any, request: Any, check: Check[Any]) -> Handler:
        return grpc.unary_unary_rpc_method_handler(
            calls.unary(rpc, handle, check),
            request_deserializer=request.FromString,
            response_serializer=_serialize,
        )

    def streaming(rpc: str, handle: Any, request: Any, check: Check[Any]) -> Handler:
        return grpc.unary_stream_rpc_method_handler(
            calls.streaming(rpc, handle, check),
            request_deserializer=request.FromString,
            response_serializer=_serialize,
        )

    read = allowed(who, Action.READ)
    return {
        "GetHuman": entries("GetHuman", service.get_human, pb.GetHumanRequest),
        "GetGarment": entries("GetGarment", service.get_garment, pb.GetGarmentRequest),
        "GetText": entries("GetText", service.get_text, pb.GetTextRequest),
        "GetTryOn": entries("GetTryOn", service.get_try_on, pb.GetTryOnRequest),
        "Get": streaming("Get", service.get, pb.GetRequest, read),
        "Put": grpc.stream_unary_rpc_method_handler(
            calls.unary("Put", service.put, allowed(who, Action.PUT)),
            request_deserializer=pb.PutRequest.FromString,
            response_serializer=_serialize,
        ),
        "Invalidate": unary(
            "Invalidate", service.invalidate, pb.InvalidateRequest, _invalidate_check(who)
        ),
        "Warm": streaming("Warm", service.warm, pb.WarmRequest, allowed(who, Action.WARM)),
        "Inspect": unary("Inspect", service.inspect, pb.InspectRequest, allowed(who, Action.FIND)),
        "Stats": unary("Stats", service.stats, pb.StatsRequest, allowed(who, Action.OBSERVE)),
        "Attach": unary("Attach", service.attach, pb.AttachRequest, read),
        "ReportHits": unary("ReportHits", service.report_hits, pb.ReportHitsRequest, read),
    }


def health_methods(servicer: health.aio.HealthServicer, who: Who) -> dict[str, Handler]:
    """Return the health service's methods: whoever is known may probe."""
    check = allowed(who, Action.PROBE)
    return {
        "Check": grpc.unary_unary_rpc_method_handler(
            _admitted(servicer.Check, check),
            request_deserializer=health_pb2.HealthCheckRequest.FromString,
            response_serializer=_serialize,
        ),
        # It writes its answers by itself, hence no generator.
        "Watch": grpc.unary_stream_rpc_method_handler(
            _admitted(servicer.Watch, check),
            request_deserializer=health_pb2.HealthCheckRequest.FromString,
            response_serializer=_serialize,
        ),
    }


def reflection_methods(who: Who) -> dict[str, Handler]:
    """Return the reflection service's method: whoever is known may ask."""
    check = allowed(who, Action.PROBE)
    servicer = reflection.aio.ReflectionServicer(
        (SERVICE_NAME, HEALTH_NAME, reflection.SERVICE_NAME)
    )

    async def info(requests: Any, context: Context) -> AsyncIterator[Any]:
        await _admit(check, requests, context)
        async for answer in servicer.ServerReflectionInfo(requests, context):
            yield answer

    return {
        "ServerReflectionInfo": grpc.stream_stream_rpc_method_handler(
            info,
            request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
            response_serializer=_serialize,
        )
    }


def _get_check(who: Who) -> Check[Any]:
    """Return the check of a Get: without its bytes it only finds."""

    def check(request: Any, context: Context) -> Any:
        principal = who(context)
        principal.check(Action.FIND if request.delivery == pb.DELIVERY_NONE else Action.READ)
        return principal

    return check


def _invalidate_check(who: Who) -> Check[pb.InvalidateRequest]:
    def check(request: pb.InvalidateRequest, context: Context) -> Any:
        principal = who(context)
        target = request.WhichOneof("target")
        if target == "everything" and not request.everything:
            target = None
        principal.check(action_of(_SCOPES[target]))
        return principal

    return check


def _admitted(handle: Callable[[Any, Context], Any], check: Check[Any]) -> Any:
    async def call(request: Any, context: Context) -> Any:
        await _admit(check, request, context)
        return await handle(request, context)

    return call


async def _admit(check: Check[Any], request: Any, context: Context) -> None:
    try:
        check(request, context)
    except CacheError as exc:
        await abort(context, exc)


def _serialize(message: Message) -> bytes:
    return message.SerializeToString()
