"""`cachesvc import-v2`: adopt V2's entries on disk, so that the new cache starts warm."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cachesvc.cli.conventions import output
from cachesvc.cli.conventions.connection import connected
from cachesvc.cli.conventions.exits import ExitCode, fail
from cachesvc.cli.conventions.options import (
    DEFAULT_TIMEOUT_S,
    ConfigFile,
    Json,
    Target,
    Timeout,
    seconds_at_least,
)

if TYPE_CHECKING:
    from cachesvc.cli.v2.adoption import Adopter, Policy
    from cachesvc.cli.v2.entries import V2Directory
    from cachesvc.cli.v2.outcomes import Outcome

# Longer than any load or save of V2: a load that an upload overtook wrote within this time.
DEFAULT_MARGIN_S = 60.0


def import_v2(
    directory: Annotated[
        Path, typer.Argument(metavar="DIR", help="V2's ssd_root, or a copy that kept its times.")
    ],
    owner: Annotated[
        str, typer.Option(help="The owner of garments and texts that --owners does not name.")
    ] = "",
    owners: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="The owner of each garment: a JSON object, or CSV lines clothing_id,owner_id. "
            "All others belong to --owner.",
        ),
    ] = None,
    namespace: Annotated[
        list[str] | None, typer.Option(help="Only this namespace; may be repeated.")
    ] = None,
    margin_s: Annotated[
        float,
        typer.Option(
            "--margin",
            parser=seconds_at_least(2.0),
            metavar="TIME",
            help="Seconds by which a file must be newer than its origin object, and within which "
            "V2 must have written all files of an entry.",
        ),
    ] = DEFAULT_MARGIN_S,
    compare_all: Annotated[
        bool, typer.Option("--compare-all", help="Compare also garments and texts with the origin.")
    ] = False,
    kind_version: Annotated[
        str, typer.Option(help="The version of the model that made V2's tensors.")
    ] = "",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Have the daemon judge each entry; store nothing.")
    ] = False,
    listed: Annotated[
        bool, typer.Option("--list", help="Name each skipped entry and why.")
    ] = False,
    config: ConfigFile = None,
    as_json: Json = False,
    target: Target = None,
    timeout_s: Timeout = DEFAULT_TIMEOUT_S,
) -> None:
    """Put V2's entries into the running daemon. V2's files are read, never changed.

    Run it with the daemon's settings and AWS credentials: a person is adopted only if every
    file is newer than its object at the origin. It may be stopped and run again: entries that
    the cache has are skipped. Exit code 1: another run may adopt some of the skipped entries;
    the message says what has to be done before.
    """
    from cachesvc.cli.v2.adoption import Policy
    from cachesvc.core.errors import ConfigError

    tally = Tally(is_dry_run=dry_run)
    policy = Policy(owner, _owners(owners), margin_s, kind_version, compare_all, dry_run)
    with ExitStack() as stack:
        try:
            files, adopter = _prepared(stack, directory, policy, config, target, timeout_s)
            entries = _entries(files, namespace or ())
        except ConfigError as exc:
            fail(str(exc), ExitCode.USAGE)
        except OSError as exc:
            fail(f"{exc.filename or directory}: cannot be read: {exc.strerror}", ExitCode.USAGE)
        try:
            _adopt_all(adopter, entries, tally, quiet=as_json)
        finally:  # stopped, or the daemon went away: adopted entries stay
            _show(tally, as_json=as_json, listed=listed)
    open_outcomes = tally.remediable()
    if open_outcomes:
        count, advice = sum(open_outcomes.values()), "; ".join(_advice(open_outcomes))
        fail(f"{count} entries are not adopted and could be; --list names them; {advice}")


class Tally:
    """The number of entries by namespace and outcome, and the skipped entries."""

    def __init__(self, *, is_dry_run: bool = False) -> None:
        self.is_dry_run = is_dry_run
        self.counts: Counter[tuple[str, Outcome]] = Counter()
        self.skipped: list[tuple[str, str, Outcome, str]] = []

    def add(self, namespace: str, name: str, outcome: Outcome, detail: str) -> None:
        from cachesvc.cli.v2.outcomes import Outcome

        self.counts[namespace, outcome] += 1
        if outcome not in (Outcome.ADOPTED, Outcome.PRESENT):
            self.skipped.append((namespace, name, outcome, detail))

    def plain(self) -> dict[str, Any]:
        namespaces: dict[str, dict[str, int]] = {}
        for (namespace, outcome), count in self.counts.items():
            namespaces.setdefault(namespace, {})[outcome.value] = count
        return {
            "namespaces": namespaces,
            "skipped": [
                {"namespace": namespace, "id": name, "outcome": outcome.value, "detail": detail}
                for namespace, name, outcome, detail in self.skipped
            ],
        }

    def remediable(self) -> Counter[Outcome]:
        """Return how many entries had each outcome about which something can be done."""
        from cachesvc.cli.v2.outcomes import REMEDIES

        return Counter(outcome for _, _, outcome, _ in self.skipped if outcome in REMEDIES)


def _prepared(
    stack: ExitStack,
    directory: Path,
    policy: Policy,
    config: Path | None,
    target: str | None,
    timeout_s: float,
) -> tuple[V2Directory, Adopter]:
    from cachesvc import config as configuration
    from cachesvc.app.origins import make_origin
    from cachesvc.cli.v2.adoption import Adopter, OriginTimes
    from cachesvc.cli.v2.entries import V2Directory
    from cachesvc.core.clock import Clock

    settings = configuration.load(config)
    kinds, limit = settings.build_kinds(), settings.limits.max_entry_bytes
    files = stack.enter_context(closing(V2Directory(str(directory), kinds, limit)))
    origin = stack.enter_context(OriginTimes(make_origin(settings.origin, limit)))
    client = stack.enter_context(connected(target, timeout_s))
    return files, Adopter(files, kinds, client, origin, policy, Clock())


def _owners(path: Path | None) -> dict[str, str]:
    from cachesvc.cli.v2.owners import read_owners

    if path is None:
        return {}
    try:
        return read_owners(path)
    except (OSError, ValueError) as exc:
        fail(f"{path}: cannot be read: {exc}", ExitCode.USAGE)


def _entries(files: V2Directory, wanted: Iterable[str]) -> list[tuple[str, str]]:
    there = files.namespaces()
    unknown = sorted(set(wanted) - set(there))
    if unknown or not there:
        what = ", ".join(unknown) or "human_upper_body or any other namespace"
        fail(f"DIR has no {what}; DIR must be V2's ssd_root", ExitCode.USAGE)
    chosen = [name for name in there if name in set(wanted)] or list(there)
    return [(namespace, name) for namespace in chosen for name in files.names(namespace)]


def _adopt_all(
    adopter: Adopter, entries: list[tuple[str, str]], tally: Tally, *, quiet: bool
) -> None:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    columns = ("{task.description}", BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=output.console(), disable=quiet) as bar:
        for namespace, name in bar.track(entries, description="importing"):
            tally.add(namespace, name, *adopter.adopt(namespace, name))


def _show(tally: Tally, *, as_json: bool, listed: bool) -> None:
    if as_json:
        output.print_json(tally.plain())
    else:
        _print(tally, listed=listed)


def _print(tally: Tally, *, listed: bool) -> None:
    console = output.console()
    for line in _skipped_lines(tally) if listed else ():
        console.print(line, soft_wrap=True)
    from cachesvc.cli.v2.outcomes import MEANINGS, WOULD_BE_ADOPTED, Outcome

    meanings = MEANINGS | ({Outcome.ADOPTED: WOULD_BE_ADOPTED} if tally.is_dry_run else {})
    table = output.table("", ("Namespace", "Outcome", ">Entries", "Meaning"))
    for (namespace, outcome), count in tally.counts.items():
        table.add_row(namespace, outcome.value, f"{count:,}", meanings[outcome])
    console.print(table)


def _advice(outcomes: Mapping[Outcome, int]) -> Iterator[str]:
    from cachesvc.cli.v2.outcomes import REMEDIES

    return (f"{outcome.value} {count}: {REMEDIES[outcome]}" for outcome, count in outcomes.items())


def _skipped_lines(tally: Tally) -> Iterator[str]:
    for namespace, name, outcome, detail in tally.skipped:
        # A name in V2's directory may hold anything, also control characters of a terminal.
        shown = name if name.isprintable() else ascii(name)
        yield f"{namespace}/{shown}: {outcome.value}{f': {detail}' if detail else ''}"
