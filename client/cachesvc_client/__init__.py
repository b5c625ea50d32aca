"""Talks to the `cachesvc` daemon on this host: prepared tensors in, prepared tensors out.

`CacheClient` is synchronous, and `AsyncCacheClient` is the same for asyncio. Importing this package
does not load torch, numpy or Pillow: each is imported for the first value of its type.
"""

from __future__ import annotations

from cachesvc_client._arguments import Category
from cachesvc_client._credentials import TlsFiles
from cachesvc_client._local import LocalOptions
from cachesvc_client._version import __version__ as __version__
from cachesvc_client._warming import WarmUp
from cachesvc_client._warming_aio import AsyncWarmUp
from cachesvc_client.aio import AsyncCacheClient
from cachesvc_client.answers import (
    EntryInfo,
    EntryKey,
    InspectedTier,
    Inspection,
    Invalidated,
    Tier,
    WarmFailure,
    WarmProgress,
    WarmSummary,
)
from cachesvc_client.client import CacheClient
from cachesvc_client.entry import AsyncEntry, Entry, TryOn
from cachesvc_client.errors import (
    Aborted,
    CacheServiceError,
    CacheUnavailable,
    CacheUnreachable,
    DataLoss,
    DeadlineExceeded,
    InvalidRequest,
    InvalidSettings,
    NotCached,
    NotDurable,
    OriginDenied,
    OriginUnavailable,
    Overloaded,
    PartStatus,
    PermissionDenied,
    PreconditionFailed,
    Unauthenticated,
    UnreadableAnswer,
    Unsupported,
)
from cachesvc_client.requests import PutOptions, TryOnKey

__all__ = [
    "CacheClient",
    "AsyncCacheClient",
    "LocalOptions",
    "TlsFiles",
    "Entry",
    "AsyncEntry",
    "TryOn",
    "TryOnKey",
    "PutOptions",
    "Category",
    "EntryInfo",
    "EntryKey",
    "Tier",
    "Inspection",
    "InspectedTier",
    "Invalidated",
    "WarmUp",
    "AsyncWarmUp",
    "WarmProgress",
    "WarmFailure",
    "WarmSummary",
    "CacheServiceError",
    "NotCached",
    "CacheUnavailable",
    "CacheUnreachable",
    "OriginUnavailable",
    "OriginDenied",
    "InvalidRequest",
    "InvalidSettings",
    "PreconditionFailed",
    "PermissionDenied",
    "Unauthenticated",
    "Overloaded",
    "Aborted",
    "NotDurable",
    "DataLoss",
    "DeadlineExceeded",
    "UnreadableAnswer",
    "Unsupported",
    "PartStatus",
]
