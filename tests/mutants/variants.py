"""Which broken variants of the product must the tests find, and how is a variant made?

A mutant is data in `catalogue/*.toml`, with its reason: texts to replace in a copy of the tree, and
the tests of the quick tier that must fail for it. Tests in process and tests of a real daemon use
the same copy; the product has no switch for mutants.
"""

from __future__ import annotations

import ast
import importlib.util
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
CATALOGUE = Path(__file__).parent / "catalogue"
PROMISES = range(1, 11)
# Only these folders are mutated; a mutant of a test would prove nothing.
PRODUCT = ("cachesvc", "client/cachesvc_client", "client/cachesvc_format")
_TEST_ID = re.compile(r"(?P<file>tests/[\w/]+\.py)::(?P<function>test_\w+)(\[[^\]]+\])?")


class StaleMutant(Exception):
    """The catalogue no longer fits the tree: the text to replace, or a test, does not exist."""


@dataclass(frozen=True)
class Change:
    """`old` stands exactly once in `file`, and becomes `new`."""

    file: str
    old: str
    new: str

    def applied_to(self, root: Path) -> str:
        """Return the whole changed file. Raises StaleMutant."""
        path = root / self.file
        if not self.file.startswith(PRODUCT) or not path.is_file():
            raise StaleMutant(f"{self.file} is no file of the product")
        source = path.read_text()
        if source.count(self.old) != 1:
            raise StaleMutant(f"{self.file} has this {source.count(self.old)} times:\n{self.old}")
        changed = source.replace(self.old, self.new)
        if self._reads_the_same(source, changed):
            raise StaleMutant(f"this change of {self.file} changes nothing:\n{self.new}")
        return changed

    def _reads_the_same(self, before: str, after: str) -> bool:
        if not self.file.endswith(".py"):
            return before.split() == after.split()
        return ast.dump(ast.parse(before)) == ast.dump(ast.parse(after))


@dataclass(frozen=True)
class Mutant:
    """`why` says what a caller would see. Every test of `killed_by` must fail for the mutant."""

    name: str
    promise: int
    why: str
    changes: tuple[Change, ...]
    killed_by: tuple[str, ...]

    def apply(self, root: Path) -> None:
        """Break the copy of the tree at `root`. Raises StaleMutant."""
        for change in self.changes:
            changed = change.applied_to(root)
            path = root / change.file
            path.write_text(changed)
            # Python trusts bytecode by time and size, which may happen to be the same.
            Path(importlib.util.cache_from_source(path)).unlink(missing_ok=True)


def read_catalogue(directory: Path = CATALOGUE) -> tuple[Mutant, ...]:
    """Return all mutants by promise. Raises StaleMutant if the data is incomplete."""
    found = [
        _mutant_of(path, data)
        for path in sorted(directory.glob("*.toml"))
        for data in tomllib.loads(path.read_text())["mutant"]
    ]
    names = [mutant.name for mutant in found]
    if repeated := {name for name in names if names.count(name) > 1}:
        raise StaleMutant(f"two mutants have the same name: {repeated}")
    return tuple(sorted(found, key=lambda mutant: mutant.promise))


def _mutant_of(path: Path, data: dict[str, Any]) -> Mutant:
    try:
        mutant = Mutant(
            data.pop("name"),
            data.pop("promise"),
            data.pop("why"),
            tuple(Change(**change) for change in data.pop("change")),
            tuple(data.pop("killed_by")),
        )
    except (KeyError, TypeError) as exc:
        raise StaleMutant(f"{path.name}: a mutant is not complete: {exc}: {data}") from exc
    if data or mutant.promise not in PROMISES or not (mutant.changes and mutant.killed_by):
        raise StaleMutant(f"{path.name}: {mutant.name}: not complete, or with {sorted(data)}")
    return mutant


def check_test(root: Path, test_id: str) -> None:
    """Raise StaleMutant unless `test_id` names a test function of the quick tier."""
    found = _TEST_ID.fullmatch(test_id)
    if found is None:
        raise StaleMutant(f"{test_id} is not tests/FILE.py::test_NAME")
    path = root / found["file"]
    tree = ast.parse(path.read_text()) if path.is_file() else ast.Module([], [])
    for node in tree.body:
        if (
            isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            and node.name == found["function"]
        ):
            if any(ast.unparse(mark) == "pytest.mark.slow" for mark in node.decorator_list):
                raise StaleMutant(f"{test_id} is slow: make test would not run it")
            return
    raise StaleMutant(f"there is no {test_id}")
