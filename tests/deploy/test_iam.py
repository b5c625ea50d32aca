"""Does the policy allow the origin's calls, on the keys of the kinds, and nothing else?"""

from __future__ import annotations

import json
import re
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest

from cachesvc.core.kinds import BUILT_IN

ROOT = Path(__file__).parents[2]
STATEMENTS = json.loads((ROOT / "deploy/iam/policy.json").read_text())["Statement"]
BUCKET = "arn:aws:s3:::my-bucket"
# The action that S3 demands for each call (its "Actions, resources, and condition keys").
ACTION_OF = {
    "get_object": "s3:GetObject",
    "head_object": "s3:GetObject",
    "put_object": "s3:PutObject",
    "head_bucket": "s3:ListBucket",
}


def actions(statement: dict[str, Any]) -> list[str]:
    given = statement["Action"]
    return given if isinstance(given, list) else [given]


def test_it_allows_each_call_that_the_origin_makes_and_no_other() -> None:
    source = (ROOT / "cachesvc/origin/s3.py").read_text()
    called = set(re.findall(r"client\.([a-z_]+)\(", source)) - {"close"}
    assert called == set(ACTION_OF)
    allowed = [action for statement in STATEMENTS for action in actions(statement)]
    assert sorted(allowed) == sorted(set(ACTION_OF.values()))
    assert {statement["Effect"] for statement in STATEMENTS} == {"Allow"}


@pytest.mark.parametrize("action", ["s3:GetObject", "s3:PutObject"])
def test_every_object_of_the_kinds_is_within_it_and_others_are_not(action: str) -> None:
    (resource,) = (s["Resource"] for s in STATEMENTS if action in actions(s))
    templates = [field.template for kind in BUILT_IN for field in kind.fields]
    assert templates
    for template in templates:
        values = {"owner": "user-1", "id": "item-2", "part": "upper", "version": "v1"}
        assert fnmatchcase(f"{BUCKET}/{template.format(**values)}", resource), template
    assert not fnmatchcase(f"{BUCKET}/users/user-1/photos/body.jpg", resource)


def test_absence_can_be_told_without_a_prefix_in_the_request() -> None:
    """HeadBucket and GetObject carry no prefix, so a plain StringLike would refuse them."""
    (statement,) = (s for s in STATEMENTS if actions(s) == ["s3:ListBucket"])
    assert statement["Resource"] == BUCKET
    assert list(statement["Condition"]) == ["StringLikeIfExists"]
