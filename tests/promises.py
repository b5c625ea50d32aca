"""Which tests prove which promise? `python -m tests.promises` writes the lists in docs/promises.md.

A test file or a test says it in its docstring: "Promise 4.", "Promises 1, 2 and 9". A list names
each file that says the number anywhere.
"""

from __future__ import annotations

import ast
import re
import textwrap
from collections import defaultdict
from pathlib import Path

TESTS = Path(__file__).parent
PAGE = TESTS.parent / "docs/promises.md"
WIDTH = 120  # columns of a page's line
# The meaning of a number in that file may stand behind it, in brackets.
_NUMBER = r"\d+(?: \([^)]*\))?"
_SAID = re.compile(rf"\b[Pp]romises? ({_NUMBER}(?:(?:, | and ){_NUMBER})*)")
_SECTION = re.compile(r"^## (\d+)\. .*?(?=^## |\Z)", re.MULTILINE | re.DOTALL)
_LIST = re.compile(r"^- \*\*Tests\.\*\*.*?\n(?=- |\n|\Z)", re.MULTILINE | re.DOTALL)


def promises_of(file: Path) -> set[int]:
    """Return the promise numbers in all docstrings of a test file."""
    tree = ast.parse(file.read_text())
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    texts = [ast.get_docstring(node) for node in ast.walk(tree) if isinstance(node, documented)]
    return {
        int(number)
        for text in texts
        for said in _SAID.findall(" ".join((text or "").split()))
        for number in re.findall(r"(?:^|, | and )(\d+)", said)
    }


def tests_by_promise() -> dict[int, list[Path]]:
    found: dict[int, list[Path]] = defaultdict(list)
    for file in sorted(TESTS.rglob("test_*.py")):
        for number in promises_of(file):
            found[number].append(file)
    return found


def with_lists(page: str) -> str:
    """Return the page with the list of each promise as the tests give it."""
    tests = tests_by_promise()

    def listed(section: re.Match[str]) -> str:
        return _LIST.sub(lambda _: _list(tests[int(section[1])]), section[0])

    return _SECTION.sub(listed, page)


def _list(files: list[Path]) -> str:
    folders: dict[str, list[str]] = defaultdict(list)
    for file in files:
        folders[file.parent.relative_to(TESTS).as_posix()].append(file.stem.removeprefix("test_"))
    named = "; ".join(f"{folder}: {', '.join(names)}" for folder, names in folders.items())
    return textwrap.fill(f"- **Tests.** {named}.", WIDTH, subsequent_indent="  ") + "\n"


if __name__ == "__main__":
    PAGE.write_text(with_lists(PAGE.read_text()))
