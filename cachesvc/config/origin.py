"""Which values of the origin's settings can lead to no bucket and no folder?

The names that S3 forbids: https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucketnamingrules.html
"""

from __future__ import annotations

import re
import stat
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

from cachesvc.config.messages import setting, shown
from cachesvc.config.settings import OriginSettings

BUCKET, REGION = setting("origin.bucket"), setting("origin.region")
ENDPOINT, PATH = setting("origin.endpoint_url"), setting("origin.path")
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_RULES = (
    "a bucket's name has 3 to 63 lower-case letters, digits, dots and hyphens, and begins and ends "
    "with a letter or digit"
)
# An access point can stand for a bucket.
_ACCESS_POINT = re.compile(r"arn:aws[a-z-]*:(s3|s3-outposts):[a-z0-9-]+:[0-9]{12}:\S+")
_ARN = re.compile(r"arn:aws[a-z-]*:s3:::([^/]+)")
_HOST_OF_BUCKET = re.compile(r"(?:https?://)?([a-z0-9.-]+?)\.s3[.-][a-z0-9.-]*amazonaws\.com.*")
_REGION = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_ZONE = re.compile(r"([a-z]{2}(?:-[a-z]+)+-[0-9])[a-z]")
_AWS_HOST = re.compile(
    r"(?:.+\.)?s3(?:-fips)?(?:\.dualstack)?[.-]([a-z]{2}(?:-[a-z]+)+-[0-9])\.amazonaws\.com(?:\.cn)?"
)


def problems(origin: OriginSettings) -> Iterator[str]:
    """Yield a sentence for each value that cannot work."""
    if origin.kind == "directory":
        yield from _problems_of_folder(origin)
        return
    if not origin.bucket:
        yield (
            f"{BUCKET} is missing; to read from a folder, set CACHESVC_ORIGIN__KIND=directory and "
            "CACHESVC_ORIGIN__PATH"
        )
    else:
        yield from _problems_of_bucket(origin.bucket)
    if origin.region:
        yield from _problems_of_region(origin.region)
    if origin.endpoint_url:
        yield from _problems_of_endpoint(origin)


def _problems_of_folder(origin: OriginSettings) -> Iterator[str]:
    if origin.path is None:
        yield f"{PATH} is missing, which the kind `directory` needs"
    elif _is_no_directory(origin.path):
        yield f"{PATH} is {shown((), str(origin.path))}: it is not a directory"
    if origin.added_latency_ms >= origin.deadline_s * 1000:
        yield (
            f"{setting('origin.added_latency_ms')} is {origin.added_latency_ms:g} ms: each read "
            f"would outlast {setting('origin.deadline_s')}, which is {origin.deadline_s:g} s"
        )


def _is_no_directory(path: Path) -> bool:
    """Return whether something else is there; a folder may be mounted later."""
    try:
        return not stat.S_ISDIR(path.stat().st_mode)
    except OSError:
        return False


def _problems_of_bucket(bucket: str) -> Iterator[str]:
    said = f"{BUCKET} is {shown((), bucket)}"
    meant = _bucket_in(bucket)
    if meant is not None:
        yield f"{said}: write the bucket's name alone, {shown((), meant)}"
    elif _ACCESS_POINT.fullmatch(bucket):
        return
    elif not _BUCKET.fullmatch(bucket) or ".." in bucket or _is_address(bucket):
        hint = f"; {shown((), bucket.lower())} may be meant" if bucket != bucket.lower() else ""
        yield f"{said}: {_RULES}{hint}"


def _bucket_in(text: str) -> str | None:
    """Return the bucket's name in what was copied with it: a URI, a URL, an ARN, a prefix."""
    if match := _ARN.match(text) or _HOST_OF_BUCKET.fullmatch(text):
        return match[1]
    scheme, separator, rest = text.partition("://")
    if not separator:
        return (
            text.split("/")[0] if "/" in text and text[:1] != "/" and text[:4] != "arn:" else None
        )
    parts = [part for part in rest.split("/") if part]
    if scheme.lower() in ("http", "https"):  # the host, then the bucket
        parts = parts[1:]
    return parts[0] if parts else None


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def _problems_of_region(region: str) -> Iterator[str]:
    said = f"{REGION} is {shown((), region)}"
    plain = region.strip().lower().replace("_", "-")
    if match := _ZONE.fullmatch(plain):
        yield f"{said}: this is an availability zone; its region is {shown((), match[1])}"
    elif not _REGION.fullmatch(region):
        yield f"{said}: a region has lower-case letters, digits and hyphens, such as eu-west-1"


def _problems_of_endpoint(origin: OriginSettings) -> Iterator[str]:
    url = origin.endpoint_url
    said = f"{ENDPOINT} is {shown((), url)}"
    try:
        parts = urlsplit(url)
        port, host = parts.port, parts.hostname
    except ValueError:
        yield f"{said}: it is no URL; write http://host:port or https://host"
        return
    if parts.scheme not in ("http", "https"):
        yield f"{said}: it needs its scheme: http://{_rest(url)} or https://{_rest(url)}"
    elif not host or port == 0 or re.search(r"\s", url):
        yield f"{said}: it names no host; write http://host:port or https://host"
    elif parts.path.strip("/") or parts.query or parts.fragment:
        yield (
            f"{said}: an endpoint has no path; write {_root(parts)}, and the bucket's name in "
            f"{BUCKET}"
        )
    else:
        yield from _problems_of_host(origin, said, host)


def _problems_of_host(origin: OriginSettings, said: str, host: str) -> Iterator[str]:
    if host.startswith(f"{origin.bucket}."):
        yield (
            f"{said}: it names the bucket, which is {BUCKET} alone; write the endpoint without "
            f"{shown((), origin.bucket + '.')}"
        )
    elif "s3-website" in host:
        yield f"{said}: a website's endpoint does not speak S3; leave it empty for AWS"
    elif (match := _AWS_HOST.fullmatch(host)) and origin.region not in ("", match[1]):
        yield f"{said}: it is in {match[1]}, but {REGION} is {shown((), origin.region)}"


def _rest(url: str) -> str:
    return re.sub(r"^([a-z0-9+.-]+:)?//", "", url, flags=re.IGNORECASE)


def _root(parts: SplitResult) -> str:
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}"
