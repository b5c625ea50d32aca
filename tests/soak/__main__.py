"""`make soak MINUTES=n`: does the daemon grow under calls that succeed, fail or are cancelled?

    python -m tests.soak [--minutes N | --calls N] [--folder DIR]

Prints the counts, writes `soak.json` and `soak.png` into the folder, and ends with exit code 1 if
memory, descriptors, tasks or threads grew.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

from tests.soak import plot
from tests.soak.growth import slope_of
from tests.soak.run import Soaked, soak


def main() -> int:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--minutes", type=float, default=10.0)
    arguments.add_argument("--calls", type=int, default=0)
    arguments.add_argument("--folder", type=Path, default=Path(".bench/soak"))
    asked = arguments.parse_args()

    def is_over(calls: int, seconds: float) -> bool:
        return calls >= asked.calls if asked.calls else seconds >= asked.minutes * 60

    with tempfile.TemporaryDirectory(prefix="cachesvc-soak-") as folder:
        soaked = soak(Path(folder), is_over)
    asked.folder.mkdir(parents=True, exist_ok=True)
    (asked.folder / "soak.json").write_text(json.dumps(asdict(soaked), indent=1))
    plot.draw(soaked, asked.folder / "soak.png")
    print(report(soaked))
    complaints = soaked.complaints()
    print(*complaints or ["nothing grew"], sep="\n")
    return 1 if complaints else 0


def report(soaked: Soaked) -> str:
    lines = [f"{soaked.seconds:.0f} s"]
    for track in (soaked.daemon, soaked.echo):
        own = slope_of(track.samples)
        lines.append(
            f"{track.server}: {track.calls:,} calls ({dict(track.ended)}), "
            f"{own.bytes_per_call:+.1f} +- {own.margin:.1f} B a call\n"
            f"  start {track.start}\n  end   {track.end}"
        )
    above = soaked.slope()
    lines.append(
        f"above the echo server: {above.bytes_per_call:+.1f} +- {above.margin:.1f} B a call"
    )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
