"""Do the kinds name the right objects, and is an impossible kind refused at the start?"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from cachesvc.core.errors import ConfigError, InvalidRequest, PreconditionFailed
from cachesvc.core.keys import EntryKey
from cachesvc.core.kinds import (
    BUILT_IN,
    GARMENT,
    HUMAN,
    TEXT,
    Encoding,
    Field,
    Kind,
    Kinds,
    Namespace,
    Subject,
)


def kind(**changes: Any) -> Kind:
    values: dict[str, Any] = {
        "name": "shoe",
        "namespaces": (Namespace("shoe"),),
        "fields": (Field("image", Encoding.PNG, "{owner}/{version}/{id}.png"),),
        "subject": Subject.CLOTHING,
        "max_entries": 1,
        **changes,
    }
    return Kind(**values)


def field(template: str) -> tuple[Field, ...]:
    return (Field("image", Encoding.PNG, template),)


@pytest.mark.parametrize(
    ("of", "key", "owner", "expected"),
    [
        (
            HUMAN,
            EntryKey("human_lower_body", "u1"),
            "u1",
            [
                f"lower/{n}"
                for n in ("human_img.png", "mask.png", "mask_gray.png", "pose_tensor.pkl")
            ],
        ),
        (
            GARMENT,
            EntryKey("garment", "g1"),
            "u2",
            ["garments/g1_img.png", "garments/g1_tensor.pkl"],
        ),
        (TEXT, EntryKey("text", "g1"), "u2", [f"text/g1_{n}.pkl" for n in TEXT.field_names]),
    ],
    ids=["human", "garment", "text"],
)
def test_the_objects_of_the_built_in_kinds_are_where_the_original_put_them(
    of: Kind, key: EntryKey, owner: str, expected: list[str]
) -> None:
    found = [of.object_key(field, key, owner) for field in of.fields]
    assert found == [f"users/{owner}/vton-cache/{name}" for name in expected]


def test_a_garment_is_read_from_its_owners_prefix_and_not_the_borrowers() -> None:
    key = EntryKey("garment", "g1")
    assert "owner-of-it" in GARMENT.object_key(GARMENT.fields[0], key, "owner-of-it")


def test_a_template_may_use_the_kinds_version() -> None:
    shoe = kind(version="v3")
    assert shoe.object_key(shoe.fields[0], EntryKey("shoe", "s1"), "o") == "o/v3/s1.png"


def test_another_models_version_is_refused() -> None:
    kind(version="v3").check_version("")
    kind(version="v3").check_version("v3")
    for of in (kind(version="v3"), kind()):
        with pytest.raises(PreconditionFailed) as failed:
            of.check_version("v2")
        assert failed.value.reason == "KIND_VERSION_MISMATCH"
        assert "expects 'v2'" in str(failed.value)
        assert "''" not in str(failed.value)


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "../shoe"},
        {"namespaces": (Namespace(".tmp"),)},
        {"namespaces": ()},
        {"fields": ()},
        {"fields": field("{id}.png") * 2},
        {"fields": field("{nobody}.png")},
        {"fields": field("{0}.png")},
        {"fields": field("{id")},
        {"fields": field("{id.none}")},
        {"fields": field("{id:>999999999}")},
        {"fields": field("{id!r}")},
        {"fields": field("/absolute/{id}")},
        {"fields": field("a/../{id}")},
        {"fields": field("")},
        {"max_entries": 0},
        {"max_bytes": -1},
        {"ttl_s": 0},
        {"version": "v/1"},
    ],
    ids=str,
)
def test_a_kind_that_cannot_work_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        kind(**changes)


def test_two_kinds_share_neither_a_name_nor_a_namespace() -> None:
    with pytest.raises(ConfigError):
        Kinds((kind(), kind(namespaces=(Namespace("boot"),))))
    with pytest.raises(ConfigError):
        Kinds((kind(), kind(name="boot")))


def test_an_unknown_namespace_is_refused_by_its_own_reason() -> None:
    kinds = Kinds(BUILT_IN)
    assert kinds.of("text") is TEXT
    for namespace, reason in (("shoe", "UNKNOWN_NAMESPACE"), ("../text", "INVALID_ID")):
        with pytest.raises(InvalidRequest) as failed:
            kinds.of(namespace)
        assert failed.value.reason == reason


def test_a_subject_names_every_namespace_its_invalidation_follows() -> None:
    kinds = Kinds(BUILT_IN)
    assert kinds.namespaces_of(Subject.CLOTHING) == ("garment", "text")
    assert set(kinds.namespaces_of(Subject.USER)) == {
        "human_upper_body",
        "human_lower_body",
        "human_dresses",
    }


def test_a_persons_entry_is_from_their_own_prefix() -> None:
    for own in ("", "alice"):
        HUMAN.check_owner("alice", own)
    with pytest.raises(InvalidRequest) as refused:
        HUMAN.check_owner("alice", "bob")
    assert refused.value.reason == "FOREIGN_OWNER"


def test_a_garment_is_from_any_prefix() -> None:
    GARMENT.check_owner("shirt", "alice")
    # The id names a garment, not a person, so its owner may be anybody.
    replace(GARMENT, private=True, stale_if_error_s=0).check_owner("shirt", "alice")
