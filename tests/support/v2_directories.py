"""What does V2's directory look like on a host that has run it?"""

from __future__ import annotations

import os
import time
from pathlib import Path

from tests.support.daemons import Daemon
from tests.support.sample_objects import Sample, put_in_folder

HOUR_S = 3600.0


class V2:
    """V2's ssd_root as it looks today."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def write(self, namespace: str, name: str, sample: Sample, age_s: float = HOUR_S) -> Path:
        """Write an entry's members with the given age; return its folder."""
        folder = self.root / namespace / name
        folder.mkdir(parents=True)
        for object_key, data in sample.objects.items():
            file = folder / Path(object_key).name.removeprefix(f"{name}_")
            if namespace == "garment":
                file = file.with_stem(f"garm_{file.stem}")
            file.write_bytes(data)
        set_age(folder, age_s)
        return folder

    def tree(self) -> dict[str, tuple[int, bytes]]:
        """Return every file's time and bytes."""
        files = (path for path in self.root.rglob("*") if path.is_file())
        return {
            str(path.relative_to(self.root)): (path.stat().st_mtime_ns, path.read_bytes())
            for path in files
        }


def set_age(path: Path, age_s: float) -> None:
    then = time.time() - age_s
    for file in [path] if path.is_file() else path.iterdir():
        os.utime(file, (then, then))


def put_aged(daemon: Daemon, sample: Sample, age_s: float) -> None:
    put_in_folder(daemon.origin_dir, sample)
    for object_key in sample.objects:
        set_age(daemon.origin_dir / object_key, age_s)
