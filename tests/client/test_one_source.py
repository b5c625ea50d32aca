"""Is the synchronous client generated from the asyncio one, and do both document the same?"""

from __future__ import annotations

import ast
import inspect
import re
import runpy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cachesvc_client import AsyncCacheClient, AsyncEntry, CacheClient, Entry

TOP = Path(__file__).parents[2]
generator = SimpleNamespace(**runpy.run_path(str(TOP / ".ci/generate_sync_client.py")))

TWINS = [(AsyncCacheClient, CacheClient), (AsyncEntry, Entry)]
# Its docstring speaks of a task, where the synchronous one speaks of a future.
OWN_DOCSTRINGS = {AsyncCacheClient.prefetch, AsyncCacheClient.warm}
OWN_TYPES = {
    "Callable[[EntryInfo], Coroutine[Any, Any, bool]]": "Callable[[EntryInfo], bool]",
    "Coroutine[Any, Any, bool]": "bool",
    "AsyncWarmUp": "WarmUp",
    "asyncio.Task[WarmSummary]": "Future[WarmSummary]",
}


def statements_of(text: str) -> list[str]:
    """Return a module's statements, its imports sorted so that renamed modules do not move."""
    statements = ast.parse(text).body
    imports = [node for node in statements if isinstance(node, (ast.Import, ast.ImportFrom))]
    for node in imports:
        node.names.sort(key=lambda name: name.name)
    dumped = sorted(ast.dump(node) for node in imports)
    return dumped + [ast.dump(node) for node in statements if node not in imports]


@pytest.mark.parametrize(("source", "target"), generator.TEXTS)
def test_the_synchronous_client_is_what_the_asyncio_one_says(source: str, target: str) -> None:
    folder, texts = TOP / generator.CLIENT, generator.TEXTS[source, target]
    made = generator.sync_of((folder / source).read_text(), texts, source)
    kept = (folder / target).read_text()
    assert kept.startswith(f"# Generated from {source} by `make client`")
    assert statements_of(kept) == statements_of(made), "run make client"


def test_code_in_docstrings_is_made_synchronous_and_prose_is_not() -> None:
    source = '''
async def read(client: AsyncCacheClient) -> AsyncEntry:
    """Await the answer of `await client.get()`; `async with AsyncCacheClient()` closes."""
    async with client:  # the AsyncCacheClient
        return await client.get(f"{await client.name()}")
'''
    assert (
        generator.sync_of(source, {}, "here.py").split("\n", 1)[1]
        == '''
def read(client: CacheClient) -> Entry:
    """Await the answer of `client.get()`; `with CacheClient()` closes."""
    with client:  # the CacheClient
        return client.get(f"{client.name()}")
'''
    )


def test_a_text_that_the_source_has_no_more_is_named() -> None:
    with pytest.raises(SystemExit, match="no longer there"):
        generator.sync_of("", {"no longer there": ""}, "here.py")


def public(of: type) -> dict[str, Any]:
    return {
        name: value
        for name, value in inspect.getmembers(of)
        if not name.startswith("_") or name == "__init__"
    }


def sync_signature(method: Any) -> str:
    signature = str(inspect.signature(method))
    for theirs, ours in OWN_TYPES.items():
        signature = signature.replace(theirs, ours)
    return re.sub(r"\bAsync(?=[A-Z])", "", signature)


@pytest.mark.parametrize(("asynchronous", "synchronous"), TWINS)
def test_both_clients_have_the_same_methods_parameters_and_docstrings(
    asynchronous: type, synchronous: type
) -> None:
    twins = public(synchronous)
    assert [*public(asynchronous)] == [*twins]
    for name, method in public(asynchronous).items():
        twin = twins[name]
        assert twin.__doc__ == method.__doc__ or method in OWN_DOCSTRINGS
        if inspect.isfunction(method):
            assert sync_signature(method) == str(inspect.signature(twin))
            assert not inspect.iscoroutinefunction(twin)


@pytest.mark.parametrize("of", [one for twins in TWINS for one in twins])
def test_every_public_method_says_itself_what_it_does(of: type) -> None:
    for name, method in [("", of), *public(of).items()]:
        if name != "__init__":
            assert method.__doc__, name
            assert "As `" not in method.__doc__.partition(".")[0], name
