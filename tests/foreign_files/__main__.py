"""Reads PNGs that others wrote: is each read as Pillow reads it, or refused as documented?

    python -m tests.foreign_files [--folder DIR]

It needs a network, and so is no part of `make test`. The files stay in DIR for the next run.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path

from tests.foreign_files import photos, sources, writers
from tests.foreign_files.judged import Outcome, documented_reasons, judged

FOLDER = Path(__file__).parents[2] / ".foreign-files"
LEAST_FOREIGN = 300
_OTHERS_SHOWN = 20


class Tally:
    """The verdicts on the files of each source."""

    def __init__(self) -> None:
        self.counts: defaultdict[str, Counter[Outcome]] = defaultdict(Counter)
        self.refusals: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self.others: list[str] = []
        self._reasons = documented_reasons()

    def add(self, source: str, name: str, data: bytes) -> None:
        outcome, why = judged(data, self._reasons)
        self.counts[source][outcome] += 1
        if outcome is Outcome.REFUSED:
            self.refusals[source][why] += 1
        if outcome is Outcome.OTHER:
            self.others.append(f"{source} {name}: {why}")

    def files_of(self, names: Iterable[str]) -> int:
        return sum(self.counts[name].total() for name in names)

    def show(self) -> None:
        columns = list(Outcome)
        print(f"{'source':16} {'files':>6}", *(f"{column.value:>14}" for column in columns))
        for source, counts in self.counts.items():
            numbers = (f"{counts[column]:>{max(14, len(column.value))}}" for column in columns)
            print(f"{source:16} {counts.total():>6}", *numbers)
            for why, count in self.refusals[source].most_common():
                print(f"{'':16} {count:>6} {why}")
        for line in self.others[:_OTHERS_SHOWN]:
            print(f"OTHER: {line}")


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="make foreign-files", description="Read PNGs that others wrote."
    )
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where the files are kept")
    folder = parser.parse_args().folder.absolute()
    tally = Tally()
    try:
        sources.fetch(folder)
        missing = _written_and_judged(folder, tally)
    except sources.CannotFetch as exc:
        print(f"This cannot be fetched or made: {exc}. Try again where packages can be had.")
        return 1
    for found in sources.files(folder, ".png", ".apng"):
        tally.add(found.package, found.path, found.data)
    tally.show()
    return _status(tally, missing)


def _written_and_judged(folder: Path, tally: Tally) -> dict[str, str]:
    """Return why a writer could not be had."""
    writers.install(folder)
    jpegs = photos.write(folder, folder / "photos")
    assert len(jpegs) == photos.COUNT, "a package no longer has a photo: choose another"
    missing = writers.write(folder, jpegs, folder / "written")
    for writer, paths in writers.written(folder / "written").items():
        for path in paths:
            tally.add(writer, path.name, path.read_bytes())
    return missing


def _status(tally: Tally, missing: dict[str, str]) -> int:
    foreign = tally.files_of(name for name in tally.counts if name not in writers.WRITERS)
    made = tally.files_of(writers.WRITERS)
    print(
        f"{foreign} PNGs of packages, {made} of {photos.COUNT} photos; others: {len(tally.others)}"
    )
    for writer, why in missing.items():
        print(f"No PNGs of {writer}: {why}")
    if foreign < LEAST_FOREIGN:
        print(f"There are fewer than {LEAST_FOREIGN} PNGs of packages.")
    return int(bool(tally.others or missing or foreign < LEAST_FOREIGN))


if __name__ == "__main__":
    sys.exit(main())
