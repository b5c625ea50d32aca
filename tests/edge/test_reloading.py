"""Promise 10: does a changed file reach the daemon once, and does a bad one change nothing?"""

from __future__ import annotations

from pathlib import Path

import pytest

from cachesvc.core.errors import ConfigError
from cachesvc.edge.reloading import Reloaded


class Text:
    """Compared by identity, as gRPC's certificates are."""

    def __init__(self, path: Path) -> None:
        self.text = path.read_text()
        if self.text == "bad":
            raise ConfigError("bad")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "file"
    file.write_text("first")
    return file


def reloaded(path: Path, failures: list[None] | None = None) -> Reloaded[Text]:
    counted = [] if failures is None else failures
    return Reloaded("a file", [path], lambda: Text(path), lambda: counted.append(None))


def test_what_has_not_changed_is_not_handed_on_again(path: Path) -> None:
    value = reloaded(path)
    assert value.current().text == "first"
    assert value.newer() is None


def test_a_change_is_handed_on_once(path: Path) -> None:
    value = reloaded(path)
    path.write_text("second")
    newer = value.newer()
    assert newer is not None
    assert newer.text == "second"
    assert value.newer() is None
    assert value.current() is newer


def test_a_change_that_somebody_else_saw_first_is_handed_on_too(path: Path) -> None:
    value = reloaded(path)
    path.write_text("second")
    assert value.current().text == "second"
    assert value.newer() is value.current()


def test_what_cannot_be_used_is_counted_once_and_changes_nothing(path: Path) -> None:
    failures: list[None] = []
    value = reloaded(path, failures)
    path.write_text("bad")
    assert value.newer() is None
    assert value.newer() is None
    assert value.current().text == "first"
    assert len(failures) == 1
