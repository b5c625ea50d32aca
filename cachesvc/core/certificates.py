"""When are the certificates of a PEM file valid, and do they end soon?

Pure. TLS libraries check the dates in each handshake but do not expose them, so this module
reads them from the DER: RFC 5280, section 4.1.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum

DAY_S = 24 * 3600
# An operator needs days to get a certificate. A program renews a certificate with a shorter
# life, when two thirds of that life are over at the latest.
SOON_S = 14 * DAY_S
SOON_OF_LIFE = 1 / 3
_NAMED = rb"(?:X509 |TRUSTED )?CERTIFICATE-----"
_PEM = re.compile(rb"-----BEGIN " + _NAMED + rb"(.+?)-----END " + _NAMED, re.DOTALL)
_SEQUENCE, _VERSION, _UTC_TIME, _GENERALIZED_TIME = 0x30, 0xA0, 0x17, 0x18


class Outlook(Enum):
    """What a certificate's dates mean at a given moment."""

    HOLDS = "holds"
    ENDS_SOON = "ends_soon"
    EXPIRED = "expired"
    NOT_YET = "not_yet"


@dataclass(frozen=True, slots=True)
class Validity:
    """The moments between which a certificate is valid, in seconds since 1970."""

    starts_s: float
    ends_s: float

    def outlook(self, wall_s: float) -> Outlook:
        if wall_s > self.ends_s:
            return Outlook.EXPIRED
        if wall_s < self.starts_s:
            return Outlook.NOT_YET
        soon_s = min(SOON_S, (self.ends_s - self.starts_s) * SOON_OF_LIFE)
        return Outlook.ENDS_SOON if self.ends_s - wall_s < soon_s else Outlook.HOLDS


def validities(pem: bytes) -> tuple[Validity, ...]:
    """Return the dates of each certificate in `pem`, in its order; empty if it has none.

    Raises:
        ValueError: a certificate is damaged.
    """
    return tuple(_of_der(base64.b64decode(body, validate=False)) for body in _PEM.findall(pem))


def of_chain(each: Iterable[Validity]) -> Validity:
    """Return when a server's certificate and its intermediates are all valid."""
    known = tuple(each)
    return Validity(max(one.starts_s for one in known), min(one.ends_s for one in known))


def of_authorities(each: Iterable[Validity], wall_s: float) -> Validity:
    """Return the dates of the authority that ends first among those valid at `wall_s`.

    If none is valid, return those of the authority that ends last. A file may hold an expired
    authority beside its successor; the expired authority is ignored.
    """
    known = sorted(each, key=lambda one: one.ends_s)
    holding = [one for one in known if one.starts_s <= wall_s <= one.ends_s]
    return holding[0] if holding else known[-1]


def _of_der(der: bytes) -> Validity:
    try:
        _, at, _ = _element(der, 0, _SEQUENCE)  # Certificate
        _, at, _ = _element(der, at, _SEQUENCE)  # tbsCertificate
        tag, _, end = _element(der, at)
        if tag == _VERSION:
            _, _, end = _element(der, end)
        for _ in ("signature", "issuer"):  # the serial number ends at `end`
            _, _, end = _element(der, end, _SEQUENCE)
        _, at, _ = _element(der, end, _SEQUENCE)  # validity
        starts_s, at = _time(der, at)
        ends_s, _ = _time(der, at)
    except IndexError as exc:
        raise ValueError("a certificate is cut short") from exc
    return Validity(starts_s, ends_s)


def _element(der: bytes, at: int, wanted: int | None = None) -> tuple[int, int, int]:
    """Return tag, begin and end of the element at `at`."""
    tag, length = der[at], der[at + 1]
    begin = at + 2
    if length & 0x80:
        begin += length & 0x7F
        length = int.from_bytes(der[at + 2 : begin])
    if wanted is not None and tag != wanted:
        raise ValueError("this is not a certificate")
    if begin + length > len(der):
        raise ValueError("a certificate is cut short")
    return tag, begin, begin + length


def _time(der: bytes, at: int) -> tuple[float, int]:
    tag, begin, end = _element(der, at)
    text = der[begin:end].decode("ascii")
    if tag == _UTC_TIME:
        # A year of two digits: 50 to 99 are 1950 to 1999.
        text = ("19" if text[:2] >= "50" else "20") + text
    elif tag != _GENERALIZED_TIME:
        raise ValueError("a certificate has no dates")
    return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC).timestamp(), end
