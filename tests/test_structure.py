"""Is each decision made in one place? Reads the syntax trees of cachesvc/."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from cachesvc.engine.flight import Flight
from cachesvc.engine.state import State

PACKAGE = Path(__file__).parents[1] / "cachesvc"
TREES = {
    str(path.relative_to(PACKAGE)): ast.parse(path.read_text())
    for path in sorted(PACKAGE.rglob("*.py"))
}
VERDICT = "core/verdict.py"
FLIGHT = "engine/flight.py"
CHANGING = {"add", "append", "clear", "discard", "extend", "insert", "pop", "remove", "update"}


def assigned(tree: ast.AST) -> Iterator[ast.Attribute]:
    """Yield `x.name` for each that an assignment or a deletion changes."""
    for node in ast.walk(tree):
        targets: list[ast.expr] = []
        if isinstance(node, ast.Assign | ast.Delete):
            targets = node.targets
        elif isinstance(node, ast.AugAssign | ast.AnnAssign):
            targets = [node.target]
        for target in targets:
            for found in ast.walk(target):
                if isinstance(found, ast.Attribute) and isinstance(found.ctx, ast.Store | ast.Del):
                    yield found


def is_named(node: ast.expr, *names: str) -> bool:
    """Return whether it is a variable or an attribute of one of these names."""
    return (isinstance(node, ast.Name) and node.id in names) or (
        isinstance(node, ast.Attribute) and node.attr in names
    )


def test_a_flights_fields_are_changed_in_its_own_module_only() -> None:
    fields = set(Flight.__dataclass_fields__)
    for module, tree in TREES.items():
        if module == FLIGHT:
            continue
        changed = [
            f"{module}: {ast.unparse(at)}"
            for at in assigned(tree)
            if at.attr in fields and is_named(at.value, "flight", "other", "newer", "older")
        ]
        assert changed == []


def test_each_field_of_the_shared_state_is_changed_by_one_module() -> None:
    fields = set(State.__dataclass_fields__)
    writers: dict[str, set[str]] = defaultdict(set)
    for module, tree in TREES.items():
        own = module == "engine/state.py"
        for at in assigned(tree):
            if at.attr in fields and is_named(at.value, "state", "_state", *(["self"] * own)):
                writers[at.attr].add(module)
        for node in ast.walk(tree):
            # state.replacing.add(key)
            if isinstance(node, ast.Attribute) and node.attr in CHANGING:
                held = node.value
                if isinstance(held, ast.Attribute) and held.attr == "replacing":
                    writers[held.attr].add(module)
    assert writers["acknowledge_from_ns"] == {"app.py"}
    assert {field: modules for field, modules in writers.items() if len(modules) > 1} == {}


def test_what_bytes_are_good_for_is_combined_in_the_verdict_only() -> None:
    """Expiry, `origin_after`, the kind's version and pending invalidations."""
    assert set(_facts_in(TREES[VERDICT])) == {"expiry", "version", "freshness"}
    combining = {}
    for module, tree in TREES.items():
        if not module.startswith(("core/", "engine/")) or module == VERDICT:
            continue
        for function in ast.walk(tree):
            if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
                facts = set(_facts_in(function))
                if len(facts) > 1:
                    combining[f"{module}: {function.name}"] = facts
    assert combining == {}


def _facts_in(function: ast.AST) -> Iterator[str]:
    for node in ast.walk(function):
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            parts = [part for side in sides for part in ast.walk(side)]
            names = {part.attr for part in parts if isinstance(part, ast.Attribute)}
            if names & {"expires_ns", "confirmed_ns"}:
                yield "expiry"
            if "kind_version" in names:
                yield "version"
        if isinstance(node, ast.Call):
            if is_named(
                node.func,
                "is_new_enough",
                "is_answer_new_enough",
                "is_stored_new_enough",
                "is_said_new_enough",
            ):
                yield "freshness"
            if isinstance(node.func, ast.Attribute) and ast.unparse(node.func).endswith(
                "tombstones.covers"
            ):
                yield "invalidation"
