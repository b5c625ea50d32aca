"""Makes the synchronous client from the asyncio one; with --check only compares them.

The script reads Python's tokens: it leaves out `async` and `await`, and turns `AsyncX` into `X` and
`_x_aio` into `_x`. Comments and docstrings get the same names, and lose `await` before code. TEXTS
has the few passages that the synchronous client words differently. ruff then lays out imports and
lines.
"""

from __future__ import annotations

import difflib
import io
import re
import subprocess
import sys
import tokenize
from pathlib import Path

CLIENT = Path("client/cachesvc_client")
TOP = Path(__file__).parents[1]
RUFF = Path(sys.executable).with_name("ruff")

# Each text stands in the asyncio file exactly once.
TEXTS: dict[tuple[str, str], dict[str, str]] = {
    ("aio.py", "client.py"): {
        '"""The asyncio client.': '"""The synchronous client.',
        """

`client.py` is made from this file by `make client`. Code that differs between the clients
is written twice, in modules of the same name with and without `_aio`.
""": "",
        "import asyncio\n": "from concurrent.futures import Future\n",
        """any number of event loops, each over its own connection.

    `close()` closes the connection of the running loop. Do not fork after the first call:
    in the child this client, and `CacheClient`, raise RuntimeError. If a call is cancelled, the
    daemon is told and nothing is held.
""": "any number of threads; a forked child connects again.\n",
        "The first step or `wait` raises the daemon's errors. Needs a running loop.\n": (
            "Raises the daemon's errors at once.\n"
        ),
        "-> asyncio.Task[WarmSummary]:": "-> Future[WarmSummary]:",
        """The task ends
        when the warm-ups of all persons have ended, with the failed keys; waiting for it is
        optional. A cancelled task starts no more warm-ups; those begun go on in the daemon.
        `timeout_s` is for each person. Needs a running loop. The task has the daemon's errors.
""": """The future ends
        when the warm-ups of all persons have ended, with the failed keys; waiting for it is
        optional. `timeout_s` is for each person. A daemon thread follows; it holds no entry.
        The future has the daemon's errors.
""",
        # A thread needs no loop to report on.
        "        self._reports.remember_loop()\n": "",
    },
    ("_link_aio.py", "_link.py"): {
        "\n\n`_link.py` is made from this file by `make client`.\n": "",
        "import AsyncGenerator, Awaitable, Callable": "import Callable, Generator",
        " If a call is cancelled, the daemon is told and\n    nothing is held.": "",
        "Callable[[float], Awaitable[A]]": "Callable[[float], A]",
        """async for message in rest:
                    yield message
""": "yield from rest\n",
    },
}
NAMES = {
    "__aenter__": "__enter__",
    "__aexit__": "__exit__",
    "aclosing": "closing",
}
_NAME = re.compile(r"\w+")
_KEYWORD_OF_CODE = re.compile(r"\b(?:async (?=def |for |with )|await (?=[\w.]+\())")


def sync_of(text: str, texts: dict[str, str], source: str) -> str:
    """Return the synchronous text; ruff lays out its imports and lines later."""
    for theirs, ours in texts.items():
        if text.count(theirs) != 1:
            sys.exit(f"{__file__}: TEXTS expects this text once in {source}: {theirs!r}")
        text = text.replace(theirs, ours)
    text = re.sub(r"AsyncGenerator\[(.+?), None\]", r"AsyncGenerator[\1, None, None]", text)
    starts = [0]
    for line in text.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    end = len(text)
    for token in reversed(list(tokenize.generate_tokens(io.StringIO(text).readline))):
        begin = starts[token.start[0] - 1] + token.start[1]
        if token.string in ("async", "await"):
            text = text[:begin] + text[end:]  # with the space behind it
        elif token.type in (tokenize.NAME, tokenize.STRING, tokenize.COMMENT):
            after = starts[token.end[0] - 1] + token.end[1]
            text = text[:begin] + _renamed(token.string) + text[after:]
        end = begin
    return f"# Generated from {source} by `make client`: edit that file instead.\n{text}"


def _renamed(text: str) -> str:
    return _NAME.sub(_sync_name, _KEYWORD_OF_CODE.sub("", text))


def _sync_name(found: re.Match[str]) -> str:
    name = found[0]
    return NAMES.get(name) or name.removeprefix("Async").removesuffix("_aio")


def _formatted(text: str, path: Path) -> str:
    for step in (["check", "--select", "I", "--fix-only", "--quiet"], ["format"]):
        text = subprocess.run(  # noqa: S603 - our own arguments
            [RUFF, *step, "--stdin-filename", path, "-"],
            input=text,
            stdout=subprocess.PIPE,
            check=True,
            text=True,
            cwd=TOP,
        ).stdout
    return text


def main() -> None:
    """Write each synchronous file, or fail with what `make client` would change."""
    stale = False
    for (source, target), texts in TEXTS.items():
        path = TOP / CLIENT / target
        made = _formatted(sync_of((TOP / CLIENT / source).read_text(), texts, source), path)
        if sys.argv[1:] != ["--check"]:
            path.write_text(made)
            continue
        kept = path.read_text().splitlines(keepends=True)
        differs = [*difflib.unified_diff(kept, made.splitlines(keepends=True), target, source)]
        sys.stdout.writelines(differs)
        stale = stale or bool(differs)
    if stale:
        sys.exit("The synchronous client is not what the asyncio one says: run make client")


if __name__ == "__main__":
    main()
