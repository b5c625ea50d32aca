"""Can these settings work on this host? Asked before the start makes or locks anything."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import structlog

from cachesvc.config import Settings, together
from cachesvc.config.messages import setting
from cachesvc.core.errors import ConfigError
from cachesvc.tiers import disk_size, host_limits
from cachesvc.tiers.mounts import mount_of

log = structlog.get_logger()


def look(settings: Settings) -> float:
    """Return this process's memory limit, and log what this host gives too little of.

    Raises:
        ConfigError: names every setting that cannot work here.
    """
    limit = host_limits.memory_limit()
    problems = [
        *together.problems_of_places(settings),
        *host_limits.problems(settings, limit),
        *disk_size.problems(settings.l2),
    ]
    if problems:
        raise ConfigError("; ".join(problems))
    disk_size.warn(settings.l2)
    mount = mount_of(settings.runtime_dir)
    if not mount.is_memory:
        log.warning(
            "runtime_dir_is_on_a_disk",
            problem=f"{setting('runtime_dir')} is on {mount.filesystem}, not in memory: L1's files "
            "are written to a disk, and hits depend on the page cache",
            do="set it to a directory in a tmpfs, such as /dev/shm/cachesvc",
        )
    return host_limits.warn(settings, limit)


@contextmanager
def of_setting(dotted: str) -> Iterator[None]:
    """Let a refusal in the `with` begin with the setting whose value is refused."""
    try:
        yield
    except ConfigError as exc:
        name = setting(dotted)
        # A message about another setting, such as L1's size, says so itself.
        if "(CACHESVC_" in str(exc):
            raise
        raise ConfigError(f"{name}: {exc}") from exc
