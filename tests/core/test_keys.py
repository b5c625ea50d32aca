"""Can an id ever be more than a name?

Promise 7: ids become directories, object keys and file names.
"""

from __future__ import annotations

import random
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachesvc.core.errors import InvalidRequest
from cachesvc.core.keys import checked_id
from cachesvc_format.names import MAX_ID_LENGTH, is_id

ALLOWED = set(string.ascii_letters + string.digits + "._-")
_HOSTILE = [
    *(
        "..",
        ".",
        "/",
        "\\",
        "\0",
        "\n",
        "\r\n",
        "%2e%2e",
        "~",
        "$(id)",
        ";",
        "'",
        '"',
        " ",
        "-",
        "_",
    ),
    *(
        "\u202e",
        "\uff0e\uff0e",
        "e\u0301",
        "\U0001f600",
        "\xe9",
        "\u0130",
        "\u0663",
        "a",
        "0",
        "Zz9",
    ),
]


def is_plain(value: str) -> bool:
    """Check an id without a regular expression."""
    return 0 < len(value) <= MAX_ID_LENGTH and set(value) <= ALLOWED and value[0] not in "._-"


def check(value: str) -> None:
    assert is_id(value) is is_plain(value)
    if is_plain(value):
        assert checked_id(value, "user_id") == value
        return
    with pytest.raises(InvalidRequest) as failed:
        checked_id(value, "user_id")
    assert failed.value.reason == ("INVALID_ID" if value else "MISSING_FIELD")
    assert failed.value.message.startswith("user_id ")


@given(value=st.text())
def test_an_id_is_one_plain_path_component_or_refused(value: str) -> None:
    check(value)


def test_five_thousand_hostile_ids_are_plain_or_refused() -> None:
    source = random.Random(20)
    for _ in range(5000):
        parts = source.choices(_HOSTILE, k=source.randint(0, 5))
        check("".join(parts) + "a" * source.choice((0, 1, 120, 127, 128)))


@pytest.mark.parametrize(
    "value",
    [
        "..",
        ".",
        "../../etc",
        "a/b",
        "a\0b",
        "-rf",
        ".hidden",
        "_x",
        "a\n",
        "\na",
        "a" * 129,
        "\uff41",
    ],
)
def test_hostile_ids_are_refused(value: str) -> None:
    assert not is_id(value)


@pytest.mark.parametrize("value", ["a", "0", "a..b", "a.-_", "A" * 128, "64f1c0ffee"])
def test_the_ids_of_the_backend_are_allowed(value: str) -> None:
    assert is_id(value)


@given(value=st.text(min_size=8, max_size=20).filter(lambda value: not is_id(value)))
def test_a_refusal_never_repeats_the_value(value: str) -> None:
    with pytest.raises(InvalidRequest) as failed:
        checked_id(value, "clothing_id")
    assert value not in failed.value.message
