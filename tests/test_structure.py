"""Is each decision made in one place, and do imports form no circle? Reads the syntax trees."""

from __future__ import annotations

import ast
import functools
import inspect
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from cachesvc.engine.cache import Cache
from cachesvc.engine.flight import Flight
from cachesvc.engine.state import State

PACKAGE = Path(__file__).parents[1] / "cachesvc"
TREES = {
    str(path.relative_to(PACKAGE)): ast.parse(path.read_text())
    for path in sorted(PACKAGE.rglob("*.py"))
}
PACKAGES = (
    *(path.parent for path in sorted(PACKAGE.glob("*/__init__.py"))),
    PACKAGE.parent / "client" / "cachesvc_client",
    PACKAGE.parent / "client" / "cachesvc_format",
)
VERDICT = "core/verdict.py"
FLIGHT = "engine/flight.py"
CHANGING = {"add", "append", "clear", "discard", "extend", "insert", "pop", "remove", "update"}


def assigned(tree: ast.AST) -> Iterator[ast.Attribute]:
    """Yield `x.name` for each attribute that an assignment or a deletion changes."""
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
    """Return whether the node is a variable or an attribute of one of these names."""
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
    assert writers["changes_known_from_ns"] == {"engine/state.py"}
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


# Properties and methods; not what an instance holds.
CALLABLE = {name: found for name, found in vars(Cache).items() if not name.startswith("_")}


def test_edge_uses_the_cache_by_its_public_methods_alone() -> None:
    edge = {module: tree for module, tree in TREES.items() if module.startswith("edge/")}
    used = {
        node.attr
        for tree in edge.values()
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and is_named(node.value, "cache", "_cache")
    }
    assert used
    assert used - CALLABLE.keys() == set()
    state = {"cachesvc.engine.state"}
    assert [module for module, tree in edge.items() if list(imported(tree, state))] == []


@pytest.mark.parametrize("name", CALLABLE)
def test_each_public_method_of_the_cache_says_what_it_takes_and_does(name: str) -> None:
    found = CALLABLE[name]
    function = found.fget if isinstance(found, property) else found
    assert inspect.getdoc(function)
    parameters = inspect.signature(function).parameters.keys() - {"self"}
    assert {*parameters, "return"} == function.__annotations__.keys()


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.name)
def test_modules_of_a_package_import_each_other_in_no_circle(package: Path) -> None:
    """An import in a function, or for types alone, counts like any other."""
    imports = imports_within(package)
    assert circle_in(imports) == []


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.name)
def test_folders_of_a_package_import_each_other_in_no_circle(package: Path) -> None:
    folders: dict[str, set[str]] = defaultdict(set)
    for module, imported in imports_within(package).items():
        folder = str(Path(module).parent)
        folders[folder] |= {str(Path(name).parent) for name in imported} - {folder}
    assert circle_in(folders) == []


def test_a_circle_is_found_wherever_it_begins() -> None:
    assert circle_in({"a": {"b", "c"}, "b": {"d"}, "c": {"d"}}) == []
    assert circle_in({"a": {"b"}, "b": {"c"}, "c": {"d"}, "d": {"b"}}) == ["b", "c", "d", "b"]


@functools.cache
def imports_within(package: Path) -> dict[str, set[str]]:
    """Return, by file, the files of the same package that it imports."""
    files = {module_of(path, package): str(path) for path in package.rglob("*.py")}
    return {
        file: {files[name] for name in imported(ast.parse(Path(file).read_text()), set(files))}
        for file in files.values()
    }


def module_of(path: Path, package: Path) -> str:
    name = ".".join(path.relative_to(package.parent).with_suffix("").parts)
    prefix = "cachesvc." if package.parent == PACKAGE else ""
    return prefix + name.removesuffix(".__init__")


def imported(tree: ast.AST, modules: set[str]) -> Iterator[str]:
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            # Each imported name is a module of that folder, otherwise a value of that module.
            parts = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [part if part in modules else str(node.module) for part in parts]
        yield from modules.intersection(names)


def circle_in(imports: Mapping[str, set[str]]) -> list[str]:
    """Return the names along one circle, the first again at the end; [] if there is none."""
    done: set[str] = set()

    def search(name: str, path: list[str]) -> list[str]:
        if name in path:
            return [*path[path.index(name) :], name]
        if name not in done:
            for other in sorted(imports.get(name, ())):
                found = search(other, [*path, name])
                if found:
                    return found
            done.add(name)
        return []

    return next((found for name in sorted(imports) if (found := search(name, []))), [])
