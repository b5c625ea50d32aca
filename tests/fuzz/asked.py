"""Parsers of what callers send: ids, paths, messages, bodies, credentials."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from google.protobuf.message import DecodeError, Message

from cachesvc.config import Settings
from cachesvc.core.credentials import MAX_TOKEN_CHARS, SubjectName, bearer_token
from cachesvc.core.errors import CacheError, InvalidRequest, Unauthenticated
from cachesvc.core.keys import EntryKey, checked_id
from cachesvc.edge.http.access import check_path
from cachesvc.edge.http.operations import read_warmup
from cachesvc.edge.messages import RequestReader, changed_at_ns
from cachesvc_proto.v1 import cache_pb2 as pb
from tests.fuzz.parser import Parser

_MAX_ID_BYTES = 128
# Written independently of the product's own expression, which is tested here.
_PLAIN = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-")
_KINDS = Settings.model_construct(kinds={}).build_kinds()
_READER = RequestReader(_KINDS)


def _assert_plain(name: str) -> None:
    raw = name.encode()
    assert 0 < len(raw) <= _MAX_ID_BYTES
    assert _PLAIN.issuperset(raw)
    assert raw[0] not in b"._-"


def _read_id(data: bytes) -> None:
    _assert_plain(checked_id(_text(data), "id"))


def _read_path(data: bytes) -> None:
    path = _text(data)
    check_path(path)
    for part in filter(None, re.split("[/?]", path.partition("?")[0])):
        _assert_plain(part)


def _text(data: bytes) -> str:
    # HTTP servers and gRPC's metadata do so: bytes that are not UTF-8 arrive as surrogates.
    return data.decode("utf-8", "surrogateescape")


def _scope(request: pb.InvalidateRequest) -> None:
    _READER.scope(request)
    moment = changed_at_ns(request)
    assert moment is None or moment >= 0


def _put(header: pb.PutHeader) -> None:
    read = _READER.put_header(header)
    _assert_key(read.key)
    assert read.ttl_s is None or read.ttl_s > 0


def _any(request: pb.GetRequest) -> None:
    _assert_key(_READER.any(request).key)


def _human(request: pb.GetHumanRequest) -> None:
    _assert_key(_READER.human(request, request.kind_version).key)


def _garment(request: pb.GetGarmentRequest) -> None:
    _assert_key(_READER.clothing("garment", request).key)


def _try_on(request: pb.GetTryOnRequest) -> None:
    for read in _READER.try_on(request).values():
        _assert_key(read.key)
        _assert_plain(read.owner)


def _warm(request: pb.WarmRequest) -> None:
    for read in _READER.warm(request):
        _assert_key(read.key)


def _inspect(request: pb.InspectRequest) -> None:
    _assert_key(_READER.key(request.key))


def _assert_key(key: EntryKey) -> None:
    _assert_plain(key.namespace)
    _assert_plain(key.id)


# The first byte of the input chooses; the rest is the message as it comes off the wire.
MESSAGES: tuple[tuple[type[Message], Callable[[Any], None]], ...] = (
    (pb.GetHumanRequest, _human),
    (pb.GetGarmentRequest, _garment),
    (pb.GetTryOnRequest, _try_on),
    (pb.GetRequest, _any),
    (pb.PutHeader, _put),
    (pb.InvalidateRequest, _scope),
    (pb.WarmRequest, _warm),
    (pb.InspectRequest, _inspect),
)


def _read_message(data: bytes) -> None:
    message_type, read = MESSAGES[data[0] % len(MESSAGES) if data else 0]
    message = message_type()
    message.ParseFromString(data[1:])
    read(message)


def _read_warmup(data: bytes) -> None:
    _warm(read_warmup(data).request())


def _read_authorization(data: bytes) -> None:
    token = bearer_token(_text(data).split("\0"))
    assert token is not None
    assert len(token) <= len(data)
    SubjectName.parse(token[:MAX_TOKEN_CHARS])


PARSERS = (
    Parser("id", _read_id, (InvalidRequest,), 512),
    Parser("path", _read_path, (InvalidRequest,), 1024),
    Parser("message", _read_message, (CacheError, DecodeError), 1024),
    Parser("warmup_body", _read_warmup, (InvalidRequest,)),
    Parser("authorization", _read_authorization, (Unauthenticated,), 1024),
)
