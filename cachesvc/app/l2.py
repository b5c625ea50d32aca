"""How are the catalog and L2 made of the settings?"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from contextlib import AsyncExitStack

import structlog

from cachesvc.app.instruments import Instruments
from cachesvc.config import Settings
from cachesvc.core.clock import NS_PER_S
from cachesvc.core.errors import ConfigError
from cachesvc.tiers import files
from cachesvc.tiers.anchors import Anchor
from cachesvc.tiers.catalog import Catalog
from cachesvc.tiers.disk import DiskTier
from cachesvc.tiers.disk_files import DiskFiles
from cachesvc.tiers.witness import Witness

log = structlog.get_logger()
# The witness of the catalog's commits, in the runtime directory.
WITNESS = "catalog"


def open_catalog(
    settings: Settings,
    disk_files: DiskFiles,
    runtime_fd: int,
    instruments: Instruments,
    stack: AsyncExitStack,
    on_loss: Callable[[], None],
) -> Catalog:
    """Return the catalog; a damaged one is set aside. `on_loss` is called in the loop for each.

    The state directory stays locked until the stack ends. Raises ConfigError.
    """
    path = settings.state_dir
    fd = files.open_directory(path, mode=0o700)
    stack.callback(os.close, fd)
    # Two daemons with one catalog would each delete the other's rows: the files are elsewhere.
    files.lock_directory(fd, path)
    loop = asyncio.get_running_loop()

    def on_reset() -> None:
        instruments.metrics.catalog_resets.inc()
        log.error("catalog_damaged", action="set aside; L2 starts empty")
        # Called in the writer's thread, or in the loop's at the start.
        loop.call_soon_threadsafe(on_loss)

    return Catalog(
        path,
        on_reset=on_reset,
        read_time=instruments.clock.read,
        witnesses=_witnesses(settings, disk_files, runtime_fd),
        anchors=(disk_files.anchor(),),
    )


def open_disk(
    settings: Settings,
    disk_files: DiskFiles,
    catalog: Catalog,
    runtime_fd: int,
    instruments: Instruments,
) -> DiskTier:
    """Return L2, with the entries that the catalog has."""
    return DiskTier(
        disk_files,
        catalog,
        settings.l2.watermarks(),
        on_leaving=instruments.left_disk,
        on_damage=instruments.metrics.damaged.inc,
        on_no_room=instruments.metrics.disk_refused_writes.inc,
        anchors=(Anchor(settings.runtime_dir, runtime_fd),),
        keep_expired_ns=int(settings.l2.keep_expired_hours * 3600 * NS_PER_S),
    )


def _witnesses(settings: Settings, disk_files: DiskFiles, runtime_fd: int) -> list[Witness]:
    try:
        in_runtime = Witness(runtime_fd, WITNESS, knows_one_catalog=False)
        return [disk_files.witness(), in_runtime]
    except OSError as exc:
        names = f"{settings.l2.root}/.catalog, {settings.runtime_dir}/{WITNESS}"
        raise ConfigError(f"one of {names} cannot be opened: {exc}; delete that file") from exc
