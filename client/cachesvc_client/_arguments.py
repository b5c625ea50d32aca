"""Checks what callers pass: one table says, by name, what each public argument must be.

A name means the same in every method. `check(locals())` at the head of a function covers all its
arguments: a name without a rule is a KeyError.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import datetime, timedelta
from itertools import product
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

import grpc

from cachesvc_client.errors import CacheServiceError, InvalidRequest, InvalidSettings
from cachesvc_format.names import ID_PATTERN, clipped, is_id

if TYPE_CHECKING:
    from typing import TypeAlias

    import numpy.typing as npt
    import torch
    from PIL import Image

    # What can be put as a tensor, and as any field.
    TensorLike: TypeAlias = "torch.Tensor" | "npt.NDArray[Any]"
    FieldLike: TypeAlias = "Image.Image" | TensorLike

# A person's garment categories, as the daemon knows them.
Category = Literal["upper_body", "lower_body", "dresses"]
CATEGORIES: tuple[Category, ...] = get_args(Category)
# The parts of a try-on.
PARTS = ("human", "garment", "text")
# The methods of a client, by which a test may let them fail.
METHODS = (
    "get_human",
    "get_garment",
    "get_text",
    "get_tryon",
    "get",
    "put",
    "invalidate",
    "warm",
    "inspect",
    "stats",
)
# The daemon's limit.
MAX_TTL = timedelta(days=366)

WRONG_TYPE = "WRONG_TYPE"
_NONE = type(None)
_STUBS = "cachesvc_proto.v1.cache_pb2"
# What `locals()` has beside a method's arguments.
_NO_ARGUMENTS = ("self", "__class__")


class Rule(NamedTuple):
    """What one argument must be.

    `fits` decides by the type, and `holds`, asked next, by the value; `expected` and `valid` say
    the same in words. `reason` is that of a wrong value. `shown` False = messages never have the
    value.
    """

    expected: str
    fits: Callable[[Any], bool]
    valid: str = ""
    holds: Callable[[Any], bool] = lambda _: True
    reason: str = "WRONG_VALUE"
    shown: bool = True


def check(
    given: Mapping[str, object],
    *,
    empty: Collection[str] = (),
    none: Collection[str] = (),
    error: type[CacheServiceError] = InvalidRequest,
) -> None:
    """Raise `error` for the first argument that is not what RULES says.

    Those named in `empty` may also be the empty str, those in `none` None.
    """
    for name, value in given.items():
        if name in _NO_ARGUMENTS or (value is None and name in none):
            continue
        if not (name in empty and type(value) is str and not value):
            _check(name, value, RULES[name], error)


def check_settings(given: Mapping[str, object], *, none: Collection[str] = ()) -> None:
    """As `check`, for arguments of a constructor. Raises InvalidSettings."""
    check(given, none=none, error=InvalidSettings)


def is_usual(
    name: str, other: str, version: str, origin_after: datetime | None, timeout_s: float | None
) -> bool:
    """Return whether the arguments of a Get have types with which a local hit needs no check.

    `check` takes 3 us, this 0.3. Only right keys were ever kept, no entry meets a naive datetime,
    and a hit needs no time. A miss builds a request, which checks all values.
    """
    types = (type(name), type(other), type(version), type(origin_after), type(timeout_s))
    return types in _USUAL


def check_as(
    name: str,
    value: object,
    shown_as: str,
    *,
    error: type[CacheServiceError] = InvalidRequest,
) -> None:
    """As `check` for one argument `name`, which messages call `shown_as`."""
    _check(shown_as, value, RULES[name], error)


def refuse(name: str, expected: str, value: object, reason: str = WRONG_TYPE) -> InvalidRequest:
    """Return the error for a value that is not `expected`."""
    return InvalidRequest(f"{name} must be {expected}, not {kind_of(value)}", reason=reason)


def kind_of(value: object) -> str:
    """Return a value's type for a message."""
    kind = type(value)
    if value is None:
        return "None"
    return kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"


def _check(name: str, value: Any, rule: Rule, error: type[CacheServiceError]) -> None:
    if not rule.fits(value):
        raise error(f"{name} must be {rule.expected}, not {kind_of(value)}", reason=WRONG_TYPE)
    if not rule.holds(value):
        reason = "MISSING_FIELD" if rule is _ID and value == "" else rule.reason
        text = f"{name} must be {rule.valid or rule.expected}, not {_shown(value, rule)}"
        raise error(text, reason=reason)


def _shown(value: object, rule: Rule) -> str:
    if isinstance(value, str) and not value:
        return "an empty str"
    if not rule.shown:
        return "this one"
    return clipped(value) if isinstance(value, str) else clipped(repr(value))[1:-1]


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _is_whole(value: object) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def _is_iterable(value: object) -> bool:
    # A str iterates over its characters, and a mapping over its keys: neither is meant.
    return isinstance(value, Iterable) and not isinstance(value, (str, bytes, Mapping))


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:  # a lone surrogate
        return False
    return True


def _are_versions(value: Mapping[object, object]) -> bool:
    return all(part in PARTS and isinstance(known, str) for part, known in value.items())


def _is_kind(item: tuple[object, object]) -> bool:
    name, fields = item
    if not isinstance(name, str) or not isinstance(fields, (tuple, list)):
        return False
    return is_id(name) and all(isinstance(field, str) for field in fields)


def is_a(value: object, module: str, name: str) -> bool:
    """Return whether the value is of a library's class, without importing the library."""
    loaded = sys.modules.get(module)
    return loaded is not None and isinstance(value, getattr(loaded, name))


def is_image(value: object) -> bool:
    """Return whether the value is a PIL image."""
    return is_a(value, "PIL.Image", "Image")


def is_tensor(value: object) -> bool:
    """Return whether the value is a torch tensor or a numpy array."""
    return is_a(value, "torch", "Tensor") or is_a(value, "numpy", "ndarray")


def _instance(*types: type) -> Callable[[object], bool]:
    return lambda value: isinstance(value, types)


def _of_ours(module: str, name: str) -> Callable[[object], bool]:
    """Return whether a value is of a class of this package that is imported later."""
    return lambda value: is_a(value, f"cachesvc_client.{module}", name)


def _or_none(fits: Callable[[Any], bool]) -> Callable[[object], bool]:
    return lambda value: value is None or fits(value)


_ID = Rule(
    "a str",
    _instance(str),
    f"a str that matches {ID_PATTERN}",
    is_id,
    "INVALID_ID",
    shown=False,
)
_OWNER = _ID._replace(
    valid=f"empty or match {ID_PATTERN}", holds=lambda value: value == "" or is_id(value)
)
_NAME = Rule("a str", _instance(str), "a str with at least one character", bool, "MISSING_FIELD")
_VERSION = Rule("a str", _instance(str), "Unicode text", _is_text, shown=False)
_CATEGORY = Rule(
    f"one of {', '.join(CATEGORIES)}",
    _instance(str),
    holds=lambda value: value in CATEGORIES,
    reason="UNKNOWN_CATEGORY",
)
_MOMENT = Rule(
    "a datetime with a time zone, or None",
    _or_none(_instance(datetime)),
    holds=lambda value: value is None or value.utcoffset() is not None,
    reason="NAIVE_DATETIME",
)
_SECONDS = Rule(
    "a number of seconds",
    _is_number,
    "a finite number of seconds, 0 or more",
    lambda value: math.isfinite(value) and value >= 0,
)
_COUNT = Rule("an int", _is_whole, "an int, 0 or more", lambda value: value >= 0)
_FLAG = Rule("a bool", _instance(bool))
_MANY = Rule("an iterable (no str and no mapping)", _is_iterable)
_IMAGE = Rule("a PIL image", is_image)._replace(reason="UNSUPPORTED_TYPE")
_TENSOR = Rule("a torch tensor or a numpy array", is_tensor)
_FILE = Rule("a str or a path", _instance(str, os.PathLike))

RULES: dict[str, Rule] = {
    **dict.fromkeys(("user_id", "clothing_id", "id"), _ID),
    "owner_id": _OWNER,
    "namespace": _NAME,
    "category": _CATEGORY,
    "kind_version": _VERSION,
    "kind_versions": Rule(
        f"a mapping of {', '.join(PARTS)} to versions (str), or None",
        _or_none(_instance(Mapping)),
        holds=lambda value: value is None or _are_versions(value),
        reason="UNKNOWN_PART",
    ),
    **dict.fromkeys(("origin_after", "as_of", "changed_at"), _MOMENT),
    "ttl": Rule(
        "a timedelta or None",
        _or_none(_instance(timedelta)),
        "more than 0 and at most 366 days",
        lambda value: value is None or timedelta(0) < value <= MAX_TTL,
        "INVALID_TTL",
    ),
    **dict.fromkeys(("timeout_s", "wait_s"), _SECONDS),
    **dict.fromkeys(("persist", "erase", "everything", "shared"), _FLAG),
    **dict.fromkeys(("human_img", "mask", "mask_gray", "garm_img"), _IMAGE),
    **dict.fromkeys(
        (
            "pose_tensor",
            "garm_tensor",
            "prompt_embeds",
            "negative_prompt_embeds",
            "pooled_prompt_embeds",
            "negative_pooled_prompt_embeds",
            "prompt_embeds_c",
        ),
        _TENSOR,
    ),
    **dict.fromkeys(
        ("fields", "data"), Rule("a mapping of names to images and tensors", _instance(Mapping))
    ),
    **dict.fromkeys(("categories", "garments", "tryons"), _MANY),
    "key": Rule(
        "a pair of namespace and id",
        _instance(tuple, list),
        holds=lambda value: len(value) == 2,
        reason="MISSING_FIELD",
    ),
    "options": Rule("PutOptions", _of_ours("requests", "PutOptions")),
    # Settings: arguments of constructors.
    "target": Rule("a str", _instance(str)),  # `_target.py` has the rest
    "credentials": Rule("grpc.ChannelCredentials", _instance(grpc.ChannelCredentials)),
    "tls": Rule("TlsFiles", _of_ours("_credentials", "TlsFiles")),
    **dict.fromkeys(("ca_file", "cert_file", "key_file"), _FILE),
    "token": Rule(
        "a str",
        _instance(str),
        "printable ASCII without spaces",
        lambda value: value.isascii() and value.isprintable() and " " not in value,
        shown=False,
    ),
    "daemon_user": Rule(
        "a user's name or number",
        lambda value: isinstance(value, str) or _is_whole(value),
        holds=lambda value: isinstance(value, str) or value >= 0,
    ),
    "local": Rule("LocalOptions", _of_ours("_local", "LocalOptions")),
    **dict.fromkeys(("max_entries", "max_bytes"), _COUNT),
    **dict.fromkeys(("share_mappings", "enabled", "non_blocking"), _FLAG),
    "service": Rule("a MemoryService", _of_ours("_memory_service", "MemoryService")),
    "extra_fields": Rule(
        "a mapping of namespaces to names of fields",
        _instance(Mapping),
        holds=lambda value: all(map(_is_kind, value.items())),
    ),
    "stats": Rule("a StatsResponse", lambda value: is_a(value, _STUBS, "StatsResponse")),
    "error": Rule("a CacheServiceError", _instance(CacheServiceError)),
    "method": Rule(
        "a str",
        _instance(str),
        f"empty or one of {', '.join(METHODS)}",
        lambda value: value in ("", *METHODS),
    ),
    "times": Rule("an int", _is_whole, "an int, 1 or more", lambda value: value > 0),
    "sync_client": Rule("a CacheClient", _of_ours("client", "CacheClient")),
    "client": Rule(
        "a CacheClient or an AsyncCacheClient",
        lambda value: (
            is_a(value, "cachesvc_client.client", "CacheClient")
            or is_a(value, "cachesvc_client.aio", "AsyncCacheClient")
        ),
    ),
    "ssd_root": _FILE,
    **dict.fromkeys(
        (
            "l1_max_users",
            "l1_human_limit",
            "l1_max_garments",
            "l1_garment_limit",
            "ttl_hours",
            "max_disk_usage_gb",
            "ssd_limit_gb",
        ),
        Rule("a number", _is_number),
    ),
    "device": Rule(
        "a torch.device, a str, an int or None",
        lambda value: (
            value is None
            or isinstance(value, str)
            or _is_whole(value)
            or is_a(value, "torch", "device")
        ),
    ),
    "dtype": Rule("a torch.dtype or None", _or_none(lambda value: is_a(value, "torch", "dtype"))),
}
_USUAL = frozenset(product((str,), (str,), (str,), (_NONE, datetime), (_NONE, int, float)))
