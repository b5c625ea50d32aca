"""Reloads on request, and logs the result.

Certificates and grants are checked where they are used (`reloading.py`). A reload checks all of
them at once, reads the settings again, and changes the log level. Its log line has the result of
each part, and the settings that need a restart.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import structlog

from cachesvc.config import Settings
from cachesvc.core.errors import ConfigError
from cachesvc.edge.reloading import Reloaded

log = structlog.get_logger()
# The settings that a running daemon takes over.
TAKEN_OVER = frozenset({"log_level"})


class ReloadRequests:
    """Runs reloads one after the other. `request` may be called at any time."""

    def __init__(
        self,
        settings: Settings,
        read_settings: Callable[[], Settings],
        set_log_level: Callable[[str], None],
    ) -> None:
        """`settings` are those in force; `read_settings` raises ConfigError."""
        self._settings = settings
        self._read_settings = read_settings
        self._set_log_level = set_log_level
        self._requested = asyncio.Event()

    def request(self) -> None:
        """Ask for a reload. Requests during a reload cause one more reload, not one each."""
        self._requested.set()

    async def run(self, files: Iterable[Reloaded[Any]]) -> None:
        """Reload on each request. Ends by cancellation."""
        while True:
            await self._requested.wait()
            self._requested.clear()
            await self._reload(files)

    async def _reload(self, files: Iterable[Reloaded[Any]]) -> None:
        # Files are read in a thread: a filesystem that hangs must not hold up a hit.
        parts = {file.what: await asyncio.to_thread(file.reload) for file in files}
        restart_for: list[str] = []
        try:
            found = await asyncio.to_thread(self._read_settings)
        except (ConfigError, OSError) as exc:
            parts["settings"] = f"failed: {exc}"
        else:
            parts["log_level"] = self._take_over(found)
            restart_for = [
                name for name in changed(self._settings, found) if name not in TAKEN_OVER
            ]
        is_done = not restart_for and not any(said.startswith("failed") for said in parts.values())
        say = log.info if is_done else log.warning
        say("reload", parts=parts, needs_restart=restart_for)

    def _take_over(self, found: Settings) -> str:
        before, after = self._settings.log_level, found.log_level
        if before == after:
            return "unchanged"
        self._set_log_level(after)
        self._settings = self._settings.model_copy(update={"log_level": after})
        return f"{before} -> {after}"


def changed(before: Settings, after: Settings) -> list[str]:
    """Return the names of the settings whose values differ."""
    old, new = (dict(_leaves(settings.model_dump(mode="json"))) for settings in (before, after))
    return sorted(name for name in old.keys() | new.keys() if old.get(name) != new.get(name))


def _leaves(values: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{above}{name}.")
        else:
            yield f"{above}{name}", value
