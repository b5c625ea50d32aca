"""Will the daemon go on with the catalog, given its state and this host's clock?"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from cachesvc.app.l2 import WITNESS
from cachesvc.cli.doctor.findings import Finding, Patient, ok, warning
from cachesvc.cli.doctor.places import daemon_pid
from cachesvc.core.clock import NS_PER_S
from cachesvc.core.errors import ConfigError, CorruptEntry
from cachesvc.tiers.catalog_facts import Facts
from cachesvc.tiers.catalog_view import CatalogView
from cachesvc.tiers.disk_files import WITNESS as WITNESS_IN_ROOT
from cachesvc.tiers.witness import Commit, Witness

# Allows for a clock that is corrected in steps.
_BEHIND_S = 60


def check_clock(patient: Patient) -> Iterator[Finding]:
    """Compare the catalog's last write with this host's clock: a later write = a wrong clock."""
    check = "catalog.clock"
    facts = _facts(patient)
    if not isinstance(facts, Facts):
        yield facts or ok(check, "there is no catalog yet")
        return
    behind_s = facts.last_write_ns / NS_PER_S - time.time()
    written = datetime.fromtimestamp(facts.last_write_ns / NS_PER_S, UTC)
    if behind_s > _BEHIND_S:
        yield warning(
            check,
            f"the catalog was last written at {written:%Y-%m-%d %H:%M} UTC, {behind_s:.0f} s later "
            "than this host's clock now: the clock is behind, or was ahead at that write",
            "correct the clock before the daemon starts (timedatectl, chronyc makestep)",
        )
    else:
        yield ok(check, f"the catalog was last written at {written:%Y-%m-%d %H:%M} UTC")


def check_state(patient: Patient) -> Iterator[Finding]:
    """Find an older state, as after a restored snapshot, which the next start sets aside."""
    check = "catalog.state"
    if daemon_pid(patient.settings.socket_path) is not None:
        yield ok(check, "the running daemon uses the catalog")
        return
    facts = _facts(patient)
    if not isinstance(facts, Facts):
        yield facts or ok(check, "there is no catalog yet")
        return
    commit, settings = Commit(facts.catalog_id, facts.commits), patient.settings
    later = [
        path
        for path, knows_one in (
            (settings.l2.root / WITNESS_IN_ROOT, True),
            (settings.runtime_dir / WITNESS, False),
        )
        if _contradicts(path, commit, knows_one_catalog=knows_one)
    ]
    if later:
        yield warning(
            check,
            f"{later[0]} knows of a later state than the catalog in {settings.state_dir}, as after "
            "a snapshot was restored: the next start sets the catalog aside, and L2 starts empty",
            "do nothing if you restored it; otherwise find out who restores this directory",
        )
    else:
        yield ok(check, "no witness knows of a later state")


def _facts(patient: Patient) -> Facts | Finding | None:
    """Return the catalog's facts, None without a catalog, or a finding if it cannot be read."""
    directory = patient.settings.state_dir
    try:
        view = CatalogView(directory)
    except ConfigError:
        return None
    try:
        return view.facts()
    except (ConfigError, CorruptEntry) as exc:
        return warning(
            "catalog",
            f"{exc}: the next start updates the catalog, or sets it aside and "
            "starts with an empty L2",
            "start the daemon; its log says what it did",
        )
    finally:
        view.close()


def _contradicts(path: Path, commit: Commit, *, knows_one_catalog: bool) -> bool:
    if not path.is_file() or path.is_symlink():
        return False
    directory_fd = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        witness = Witness(directory_fd, path.name, knows_one_catalog=knows_one_catalog)
    finally:
        os.close(directory_fd)
    try:
        return witness.contradicts(commit)
    finally:
        witness.close()
