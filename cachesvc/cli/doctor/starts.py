"""Would the daemon start here? Each check calls the function that would refuse the start.

Paths that do not exist yet are skipped: the start makes them, and `places.py` checks whether it
can.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

from cachesvc.app.l2 import WITNESS
from cachesvc.cli.doctor.findings import Finding, Patient, error, ok
from cachesvc.cli.doctor.places import unnamed_file
from cachesvc.config import together
from cachesvc.core import durable
from cachesvc.core.errors import ConfigError
from cachesvc.edge import audit
from cachesvc.tiers import files, quarantine
from cachesvc.tiers.catalog_file import CatalogFile
from cachesvc.tiers.disk_files import TEMPORARY
from cachesvc.tiers.disk_files import WITNESS as WITNESS_IN_ROOT
from cachesvc_format import control_page

# A page of SQLite: what its first write needs.
_PROBE_BYTES = 4096
_MEND = "remove or rename that file, or set another directory"


def check_separate(patient: Patient) -> Iterator[Finding]:
    """Find one directory or port for two purposes: the second lock or listener is refused."""
    settings = patient.settings
    found = [
        *together.problems_of_places(settings),
        *together.problems_of_sockets(settings),
        *together.problems_of_ports(settings),
    ]
    if found:
        yield error(
            "start.separate",
            f"the daemon refuses to start: {'; '.join(found)}",
            "set a different place for each",
        )
    else:
        yield ok("start.separate", "each directory and listener has its own place")


def check_directories(patient: Patient) -> Iterator[Finding]:
    """Open the existing directories below the configured directories, as the daemon does."""
    settings = patient.settings
    below_root = (TEMPORARY, quarantine.NAME, *settings.build_kinds().namespaces)
    paths = [settings.runtime_dir / control_page.L1_DIRECTORY]
    paths += [settings.l2.root / name for name in below_root]
    tries = [_opens(path) for path in paths if os.path.lexists(path)]
    yield _all_pass("start.directories", tries, "the daemon can open its directories")


def check_names(patient: Patient) -> Iterator[Finding]:
    """Check the files and sockets that the start replaces or reads."""
    settings = patient.settings
    tries: list[Callable[[], None]] = [
        lambda: _is_no_directory(settings.runtime_dir / control_page.NAME),
        lambda: _is_socket_or_absent(settings.admin_socket_path),
        lambda: _is_file_or_absent(settings.runtime_dir / WITNESS),
        lambda: _is_file_or_absent(settings.l2.root / WITNESS_IN_ROOT),
        CatalogFile(settings.state_dir).check_names,
    ]
    if not settings.audit.plain_ids and os.path.lexists(settings.state_dir / audit.KEY_FILE):
        tries.append(lambda: _discard(audit.load_key(settings.state_dir)))
    yield _all_pass("start.names", tries, "no foreign file has a name that the daemon needs")


def check_writing(patient: Patient) -> Iterator[Finding]:
    """Write a page where each start writes the control page and the catalog."""
    settings = patient.settings
    paths = [path for path in (settings.runtime_dir, settings.state_dir) if path.is_dir()]
    tries = [_takes_a_page(path) for path in paths]
    yield _all_pass("start.writing", tries, "the daemon can write its directories")


def _all_pass(check: str, tries: list[Callable[[], None]], passed: str) -> Finding:
    problems = []
    for attempt in tries:
        try:
            attempt()
        except ConfigError as exc:
            problems.append(str(exc))
    if problems:
        return error(check, f"the daemon refuses to start: {'; '.join(problems)}", _MEND)
    return ok(check, passed)


def _opens(path: Path) -> Callable[[], None]:
    return lambda: os.close(files.open_directory(path, mode=0o750))


def _takes_a_page(path: Path) -> Callable[[], None]:
    def attempt() -> None:
        try:
            fd = unnamed_file(path)
            try:
                durable.write_all(fd, bytes(_PROBE_BYTES))
            finally:
                os.close(fd)
        except OSError as exc:
            raise ConfigError(f"{path} cannot be written: {exc.strerror}") from exc

    return attempt


def _is_no_directory(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        raise ConfigError(f"{path}: is a directory, but the daemon needs a file of this name")


def _is_file_or_absent(path: Path) -> None:
    if os.path.lexists(path) and not stat.S_ISREG(path.lstat().st_mode):
        raise ConfigError(f"{path}: not a regular file")


def _is_socket_or_absent(path: Path) -> None:
    if os.path.lexists(path) and not stat.S_ISSOCK(path.lstat().st_mode):
        raise ConfigError(f"{path}: not a socket")


def _discard(_: bytes) -> None:
    """Ignore the key: only whether it can be read matters."""
