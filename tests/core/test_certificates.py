"""Are a certificate's dates read as the library wrote them that made it?"""

from __future__ import annotations

import base64
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from cachesvc.core.certificates import (
    DAY_S,
    Outlook,
    Validity,
    of_authorities,
    of_chain,
    validities,
)
from tests.support.certificates import Authority

# The short form of a date ends with 2049; a certificate may be valid as long as this.
MOMENTS = st.datetimes(datetime(1950, 1, 1), datetime(9999, 12, 31, 23, 59, 59))
CA = Authority("ca")


@given(MOMENTS, MOMENTS)
def test_the_dates_are_those_that_the_certificate_was_made_with(
    one: datetime, other: datetime
) -> None:
    starts, ends = (at.replace(microsecond=0, tzinfo=UTC) for at in sorted((one, other)))
    (found,) = validities(CA.issue("host", between=(starts, ends)).pem)
    assert found == Validity(starts.timestamp(), ends.timestamp())


def test_each_certificate_of_a_file_is_found_whatever_lies_between_them() -> None:
    now = datetime.now(UTC) - timedelta(hours=1)
    first, second = CA.issue("a"), CA.issue("b", expired=True)
    text = b"Subject: a\n" + first.pem + first.key + b"\n# b\n" + second.pem.replace(b"\n", b"\r\n")
    found = validities(text)
    assert [one.outlook(now.timestamp()) for one in found] == [Outlook.HOLDS, Outlook.EXPIRED]
    assert validities(first.key) == ()
    assert validities(b"") == ()


@given(st.binary(max_size=200), st.integers(0, 400))
def test_a_damaged_certificate_is_a_value_error(junk: bytes, cut: int) -> None:
    body = x509.load_pem_x509_certificate(CA.pem).public_bytes(Encoding.DER)
    for der in (junk, body[:cut], body[:cut] + junk):
        with suppress(ValueError):
            validities(_pem(der))


def _pem(der: bytes) -> bytes:
    begin, end = b"-----BEGIN CERTIFICATE-----", b"-----END CERTIFICATE-----"
    return b"\n".join((begin, base64.encodebytes(der) or b"\n", end))


@pytest.mark.parametrize(
    ("lives_days", "left_days", "outlook"),
    [
        (90, 14.01, Outlook.HOLDS),
        (90, 13.99, Outlook.ENDS_SOON),
        (90, 0, Outlook.ENDS_SOON),
        (90, -0.01, Outlook.EXPIRED),
        (90, 90.01, Outlook.NOT_YET),
        # A program renews this certificate each hour: "soon" begins with its last third.
        (1 / 24, 0.34 / 24, Outlook.HOLDS),
        (1 / 24, 0.33 / 24, Outlook.ENDS_SOON),
    ],
)
def test_what_is_soon_depends_on_how_long_it_lives(
    lives_days: float, left_days: float, outlook: Outlook
) -> None:
    validity = Validity(0, lives_days * DAY_S)
    assert validity.outlook((lives_days - left_days) * DAY_S) is outlook


def test_a_chain_holds_while_all_of_it_does_and_authorities_while_one_does() -> None:
    long, short, over = Validity(0, 100), Validity(10, 50), Validity(0, 5)
    assert of_chain((long, short)) == Validity(10, 50)
    assert of_authorities((over, long, short), 20) == short
    assert of_authorities((over, long, short), 60) == long
    assert of_authorities((over, long, short), 200) == long
