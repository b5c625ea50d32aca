"""What becomes of a person's entry that the first release read from another person's prefix?

Promise 1. Such an entry shows one person under the id of another. It is served to nobody, and an
invalidation of either person deletes it. The engine still stores such a row if a call asks for it:
the edge, which refuses the call, is not part of these tests.
"""

from __future__ import annotations

import pytest

from cachesvc.core.errors import PreconditionFailed
from cachesvc.core.keys import EntryKey
from cachesvc.core.kinds import Subject
from cachesvc.core.scopes import Scope, ScopeKind, subject_scope
from cachesvc.engine.rewarm import Rewarmer
from tests.support.engine.house import EngineHouse

ANN = EntryKey("human_upper_body", "ann")
GARMENT = EntryKey("garment", "shirt")


async def foreign(house: EngineHouse) -> None:
    """Store ann's row from bob's prefix, and restart."""
    house.upload(ANN, 1, "bob")
    await house.get(ANN, "bob")
    await house.settle()
    await house.restart()
    assert len(house.files()) == 1


async def test_it_is_not_served_without_an_owner(house: EngineHouse) -> None:
    await foreign(house)
    with pytest.raises(PreconditionFailed):
        await house.get(ANN, "")


async def test_it_is_not_served_while_the_origin_is_away(house: EngineHouse) -> None:
    await foreign(house)
    with pytest.raises(Exception, match="no such object"):
        await house.get(ANN, "ann")


async def test_it_is_replaced_by_what_the_persons_own_prefix_has(house: EngineHouse) -> None:
    await foreign(house)
    house.upload(ANN, 2, "ann")
    assert await house.version(ANN) == 2
    await house.settle()
    assert len(house.files()) == 1
    await house.restart()
    assert await house.version(ANN) == 2


async def test_it_is_not_rewarmed_and_not_inspected(house: EngineHouse) -> None:
    await foreign(house)
    assert await Rewarmer(house.engine, house.cache._getter).run() == 0
    inspection = await house.cache.inspect(ANN)
    assert (inspection.memory, inspection.disk) == (None, None)


@pytest.mark.parametrize("user", ["ann", "bob"])
async def test_it_leaves_with_either_person(house: EngineHouse, user: str) -> None:
    await foreign(house)
    done = await house.cache.invalidate(subject_scope(Subject.USER, user, house.kinds))
    await house.settle()
    assert done.removed_count == 1
    assert house.files() == []
    assert house.catalog.lookup(ANN) is None


@pytest.mark.parametrize(
    "scope",
    [
        Scope(ScopeKind.USER, "carol", ("human_upper_body",)),
        Scope(ScopeKind.USER, "bob", ("human_dresses",)),
        Scope(ScopeKind.CLOTHING, "bob", ("human_upper_body",)),
    ],
    ids=lambda scope: f"{scope.kind.value} {scope.value}",
)
async def test_it_stays_when_somebody_else_is_removed(house: EngineHouse, scope: Scope) -> None:
    await foreign(house)
    await house.cache.invalidate(scope)
    await house.settle()
    assert len(house.files()) == 1


async def test_a_garment_stays_when_the_user_whose_prefix_it_is_from_is_removed(
    house: EngineHouse,
) -> None:
    house.upload(GARMENT, 1, "bob")
    assert await house.version(GARMENT, "bob") == 1
    await house.settle()
    await house.cache.invalidate(subject_scope(Subject.USER, "bob", house.kinds))
    await house.settle()
    assert (await house.get(GARMENT, "bob")).tier == "memory"
    assert len(house.files()) == 1
