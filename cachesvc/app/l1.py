"""How is L1 made of the settings, and what ends local hits while it serves?"""

from __future__ import annotations

import structlog

from cachesvc.app.instruments import Instruments
from cachesvc.config import Settings
from cachesvc.core.kinds import Kinds
from cachesvc.core.memory_index import NamespaceLimits
from cachesvc.tiers import descriptors, files
from cachesvc.tiers.control import ControlPage
from cachesvc.tiers.memory import MemoryTier
from cachesvc_format.control_page import L1_DIRECTORY

log = structlog.get_logger()
# L1's part in /readyz.
PROBLEM = "l1"
_UNPROTECTED = (
    "fs.protected_hardlinks is not 1: a user who may read L1's files could keep their link counts "
    "up by hard links, so every answer is inline (sysctl fs.protected_hardlinks=1)"
)


def open_memory(
    settings: Settings,
    kinds: Kinds,
    gid: int | None,
    control: ControlPage,
    instruments: Instruments,
) -> MemoryTier:
    """Return L1, empty. Raises ConfigError if its directory cannot be used."""
    is_shared = files.hard_links_are_protected()
    if not is_shared:
        log.warning("no_shared_files", reason=_UNPROTECTED)
        control.suspend("hard links")

    def on_owing(problem: str | None) -> None:
        if problem is None:
            control.resume(PROBLEM)
            instruments.problems.clear(PROBLEM)
        else:
            control.suspend(PROBLEM)
            instruments.problems.set(PROBLEM, f"a file cannot be unlinked: {problem}")

    return MemoryTier(
        settings.runtime_dir / L1_DIRECTORY,
        _limits(kinds),
        settings.l1.max_bytes,
        on_leaving=instruments.left_memory,
        gid=gid,
        allow_heap=settings.l1.allow_heap,
        spare_bytes=settings.l1.spare_bytes,
        on_owing=on_owing,
        max_files=descriptors.files_of_l1(),
        is_shared=is_shared,
    )


def _limits(kinds: Kinds) -> dict[str, NamespaceLimits]:
    by_namespace = {namespace: kinds.of(namespace) for namespace in kinds.namespaces}
    return {
        namespace: NamespaceLimits(kind.max_entries, kind.max_bytes)
        for namespace, kind in by_namespace.items()
    }
