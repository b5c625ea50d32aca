"""What does S3's answer say of its object, and is the answer whole?

Pure: botocore's dicts in, stamps out. An answer without a needed header is damaged.
"""

from __future__ import annotations

from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any

from cachesvc.core.errors import OriginUnavailable
from cachesvc.core.origin import OriginStamp
from cachesvc.origin import reasons


def bad_answer(what: str) -> OriginUnavailable:
    return OriginUnavailable(f"the origin's answer is damaged: {what}", reason=reasons.BAD_ANSWER)


def length_of(answer: Mapping[str, Any]) -> int:
    """Return Content-Length. Without one, a body that was cut short would look whole."""
    size_bytes = answer.get("ContentLength")
    if not isinstance(size_bytes, int):
        raise bad_answer("no Content-Length")
    return size_bytes


def stamp_of(object_key: str, answer: Mapping[str, Any]) -> OriginStamp:
    etag, last_modified = answer.get("ETag"), answer.get("LastModified")
    if not etag or last_modified is None:
        raise bad_answer("no ETag or no Last-Modified")
    return OriginStamp(object_key, _unquoted(etag), last_modified.timestamp())


def stamp_of_write(object_key: str, put: Mapping[str, Any], head: Mapping[str, Any]) -> OriginStamp:
    """Return the stamp of our bytes, not of an object that has replaced them since.

    Us: PUT a -> etag 1 | another: PUT b -> etag 2 | us: HEAD -> etag 2, later time.
    Our bytes with etag 2 would count as current for ever. So if the etags differ, the
    stamp has our PUT's etag and Date, which is no later than the other PUT's.
    """
    stamp = stamp_of(object_key, head)
    etag = _unquoted(put.get("ETag", ""))
    if etag == stamp.etag:
        return stamp
    date = put.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date")
    if not etag or date is None:
        raise bad_answer("no ETag or no Date for a PUT")
    return OriginStamp(object_key, etag, parsedate_to_datetime(date).timestamp())


def stamp_unmodified(known: OriginStamp, response: Mapping[str, Any]) -> OriginStamp:
    """Return `known` with S3's Last-Modified of now: the same bytes may be uploaded again."""
    headers = response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    date = headers.get("last-modified")
    if date is None:
        return known
    try:
        last_modified_s = parsedate_to_datetime(date).timestamp()
    except ValueError as exc:
        raise bad_answer("a Last-Modified that is no date") from exc
    return OriginStamp(known.object_key, known.etag, last_modified_s)


def _unquoted(etag: str) -> str:
    return etag.removeprefix("W/").strip('"')
