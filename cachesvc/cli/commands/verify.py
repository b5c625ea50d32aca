"""`cachesvc verify`: compare every entry of L2 with its catalog row.

It works with or without a running daemon: it only reads the catalog, and moves damaged files aside
on request. For the daemon a row without its file is a miss.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cachesvc.cli.conventions import output
from cachesvc.cli.conventions.exits import ExitCode, fail
from cachesvc.cli.conventions.options import ConfigFile, Json

if TYPE_CHECKING:
    from cachesvc.config import Settings
    from cachesvc.tiers.catalog_view import CatalogView
    from cachesvc.tiers.disk_files import DiskFiles
    from cachesvc.tiers.verification import Check


def verify(
    quarantine: Annotated[
        bool,
        typer.Option("--quarantine", help="Move damaged files to .quarantine in the L2 root."),
    ] = False,
    as_json: Json = False,
    config: ConfigFile = None,
) -> None:
    """Check every entry of L2 against its checksum, with or without a running daemon.

    Run it as the daemon's user, with the daemon's settings. Without --quarantine nothing is
    changed; the daemon itself finds damage when it next reads the entry from disk.
    Exit code 1: an entry is damaged or cannot be read.
    """
    from cachesvc import config as configuration
    from cachesvc.core.errors import ConfigError, CorruptEntry

    try:
        with ExitStack() as stack:
            view, files = _opened(configuration.load(config), stack)
            tally = _verify(view, files, quarantine=quarantine, quiet=as_json)
    except ConfigError as exc:
        fail(str(exc), ExitCode.USAGE)
    except CorruptEntry as exc:
        fail(
            f"{exc.message}; at its next write the daemon sets the catalog aside, "
            "and L2 starts empty"
        )
    except OSError as exc:
        fail(f"the L2 root cannot be opened: {exc.strerror}; CACHESVC_L2__ROOT sets it")
    if as_json:
        output.print_json(tally.plain())
    else:
        _print(tally)
    if tally.bad:
        fail(f"{len(tally.bad)} entries of L2 are damaged or unreadable{_advice(tally)}")


class Tally:
    """The number of entries by verdict, and the bad entries."""

    def __init__(self) -> None:
        from cachesvc.tiers.verification import Verdict

        self.counts: Counter[str] = Counter({verdict.value: 0 for verdict in Verdict})
        self.checked_bytes = 0
        self.bad: list[tuple[Check, bool]] = []

    def add(self, check: Check, *, quarantined: bool) -> None:
        from cachesvc.tiers.verification import BAD

        self.counts[check.verdict.value] += 1
        self.checked_bytes += check.row.meta.size_bytes
        if check.verdict in BAD:
            self.bad.append((check, quarantined))

    def plain(self) -> dict[str, Any]:
        return {
            "checked": self.counts.total(),
            "checked_bytes": self.checked_bytes,
            **self.counts,
            "bad": [
                {
                    **check.row.meta.key._asdict(),
                    "generation": check.row.meta.generation,
                    "verdict": check.verdict.value,
                    "detail": check.detail,
                    "quarantined": quarantined,
                }
                for check, quarantined in self.bad
            ],
        }


def _opened(settings: Settings, stack: ExitStack) -> tuple[CatalogView, DiskFiles]:
    from cachesvc.tiers.catalog_view import CatalogView
    from cachesvc.tiers.disk_files import DiskFiles

    view = stack.enter_context(closing(CatalogView(settings.state_dir)))
    files = stack.enter_context(closing(DiskFiles.beside_a_daemon(settings.l2.root)))
    return view, files


def _verify(view: CatalogView, files: DiskFiles, *, quarantine: bool, quiet: bool) -> Tally:
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn

    tally, total = Tally(), view.total()
    columns = ("{task.description}", BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=output.console(), disable=quiet) as bar:
        task = bar.add_task("verifying", total=total.stored_bytes)
        for check, quarantined in _checks(view, files, quarantine=quarantine):
            tally.add(check, quarantined=quarantined)
            bar.update(task, completed=tally.checked_bytes)
            if check.detail and not quiet:
                name = "/".join(check.row.meta.key)
                bar.print(f"{name}: {check.verdict.value}: {check.detail}", soft_wrap=True)
        bar.update(task, completed=tally.checked_bytes, total=tally.checked_bytes)
    return tally


def _checks(
    view: CatalogView, files: DiskFiles, *, quarantine: bool
) -> Iterator[tuple[Check, bool]]:
    from cachesvc.tiers.disk_files import Location
    from cachesvc.tiers.verification import Verdict, check_entry

    for row in view.rows():
        check, moved = check_entry(view, files, row), False
        if quarantine and check.verdict is Verdict.DAMAGED:
            # Only this generation's file has this name, so no other bytes can be moved, whatever
            # the daemon does meanwhile.
            with suppress(OSError):  # `quarantined` reports it
                files.quarantine(Location(row.meta.key, row.meta.generation))
                moved = True
        yield check, moved


def _print(tally: Tally) -> None:
    counts = ", ".join(f"{name} {count}" for name, count in tally.counts.items())
    size = output.size_text(tally.checked_bytes)
    output.console().print(f"{tally.counts.total()} entries, {size}: {counts}")


def _advice(tally: Tally) -> str:
    if all(quarantined for _, quarantined in tally.bad):
        return "; their files are in .quarantine, and the next Get of each reads the origin"
    return "; --quarantine moves damaged files aside; dmesg may say whether the disk fails"
