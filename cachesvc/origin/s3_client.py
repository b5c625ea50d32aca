"""How is a client of S3 opened, and with which limits of its own?

Only this module imports aiobotocore. boto3's layer above it is not needed, and loading it takes
a tenth of a start's processor time. Opening blocks, so a thread does it. `s3.py` sets the
deadline of every call; the library's own timeouts are shorter.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, Literal

from aiobotocore.config import AioConfig
from aiobotocore.session import AioSession
from botocore.loaders import Loader
from botocore.utils import parse_timestamp

from cachesvc import __version__
from cachesvc.core.errors import OriginUnavailable
from cachesvc.origin import reasons
from cachesvc.origin.s3_failures import s3_errors_of
from cachesvc.origin.s3_unasked import error_for_client, error_for_file

# Three people's 11 members at once; each connection holds one object in memory.
DEFAULT_MAX_CONCURRENT_READS = 32
# Writes are rare (Put with persist) and must not wait behind a burst of reads.
MAX_CONCURRENT_WRITES = 4
# Room in the pool beyond both limits, so that check() never waits for a slot.
_SPARE_CONNECTIONS = 4
# botocore's attempts until the headers, up to 1 s apart, all inside our deadline.
_HEADER_ATTEMPTS = 2
_MAX_CONNECT_TIMEOUT_S = 3.0


@dataclass(frozen=True, slots=True)
class S3Settings:
    """The bucket, its place, and the limits of a call.

    If `region` or `endpoint_url` is None, AWS's own configuration decides. Credentials come
    from AWS's chain (environment, profile, web identity, instance role), never from here.
    `deadline_s` bounds one call, its wait for a free connection included.
    """

    bucket: str
    region: str | None = None
    endpoint_url: str | None = None
    addressing_style: Literal["auto", "path", "virtual"] = "auto"
    deadline_s: float = reasons.DEFAULT_DEADLINE_S
    max_concurrent_reads: int = DEFAULT_MAX_CONCURRENT_READS
    max_object_bytes: int = reasons.DEFAULT_MAX_OBJECT_BYTES


@dataclass(frozen=True, slots=True)
class OpenClient:
    """The client, and the context that closes it."""

    context: Any
    client: Any


async def open_client(settings: S3Settings) -> OpenClient:
    """Return a client of this loop. Raises OriginDenied, OriginUnavailable.

    If cancelled, its thread goes on, and the client that it opens is lost.
    """
    # Loading the service's model blocks for 110-150 ms, and reading the
    # credentials may ask the network: neither belongs on the loop that serves hits.
    thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="origin-s3-open")
    try:
        with s3_errors_of(None):
            return await asyncio.get_running_loop().run_in_executor(thread, _open_client, settings)
    finally:
        thread.shutdown(wait=False)


def _open_client(settings: S3Settings) -> OpenClient:
    """Build the client on a loop of this thread.

    The client binds no connection to that loop: aiobotocore opens its aiohttp session with the
    first request.
    """
    try:
        session = AioSession()
        loader = session.get_component("data_loader")
        session.register_component("data_loader", _QuickLoader(loader.search_paths))
        session.get_component("response_parser_factory").set_parser_defaults(
            timestamp_parser=_parse_time
        )
        context = session.create_client(
            "s3",
            region_name=settings.region,
            endpoint_url=settings.endpoint_url,
            config=_client_config(settings),
        )
        return OpenClient(context, asyncio.run(_entered(context)))
    except ValueError as exc:
        raise error_for_client(exc) from exc
    except OSError as exc:
        raise error_for_file(exc) or OriginUnavailable(
            "the AWS configuration or credentials could not be read",
            reason=reasons.CREDENTIALS_UNAVAILABLE,
        ) from exc


class _QuickLoader(Loader):  # type: ignore[misc]  # botocore is not typed
    """Reads the models of services. botocore's own loader first lists, twice, those of 400.

    Listing takes 16 ms of a start, and serves only the error that names an unknown service.
    """

    def __init__(self, search_paths: list[str]) -> None:
        super().__init__(search_paths, include_default_search_paths=False)

    def list_available_services(self, type_name: str) -> list[str]:
        del type_name
        folders = (Path(path) for path in self.search_paths)
        return [found.name for folder in folders if folder.is_dir() for found in folder.iterdir()]


async def _entered(context: Any) -> Any:
    return await context.__aenter__()


def _parse_time(value: Any) -> datetime:
    """Return the time `value` of an answer, in any form that botocore knows.

    S3's headers always have one form, and botocore's parser of all forms takes a tenth of a
    request's time. STS, which web identities use in the same session, has another form.
    """
    if isinstance(value, str) and value.endswith(" GMT"):
        return parsedate_to_datetime(value)
    parsed: datetime = parse_timestamp(value)
    return parsed


def _client_config(settings: S3Settings) -> AioConfig:
    over_tls = settings.endpoint_url is None or settings.endpoint_url.startswith("https:")
    return AioConfig(
        # botocore would build its own twice for each request, in 0.1 ms.
        user_agent=f"cachesvc/{__version__}",
        max_pool_connections=settings.max_concurrent_reads
        + MAX_CONCURRENT_WRITES
        + _SPARE_CONNECTIONS,
        connect_timeout=min(_MAX_CONNECT_TIMEOUT_S, settings.deadline_s / 3),
        # Half, so that a silent connection leaves time for a second attempt.
        read_timeout=settings.deadline_s / 2,
        retries={"mode": "standard", "total_max_attempts": _HEADER_ATTEMPTS},
        # A 304 with a checksum header raises TypeError in the default, "when_supported".
        response_checksum_validation="when_required",
        # Ceph over TLS refuses the trailing checksums of the default.
        request_checksum_calculation="when_required",
        s3={
            "addressing_style": settings.addressing_style,
            # TLS protects the body already; hashing it again would block the loop.
            "payload_signing_enabled": not over_tls,
        },
    )


async def credentials_source(deadline_s: float) -> str | None:
    """Return botocore's name for the source of the AWS credentials; None if there are none.

    Examples: `env`, `shared-credentials-file`, `iam-role`. Raises OriginError.
    """
    try:
        async with asyncio.timeout(deadline_s):
            with s3_errors_of(None):
                found = await _found_credentials()
    except TimeoutError as exc:
        raise reasons.timed_out(deadline_s) from exc
    return None if found is None else str(found.method)


async def _found_credentials() -> Any:
    try:
        return await AioSession().get_credentials()
    except ValueError as exc:
        raise error_for_client(exc) from exc
