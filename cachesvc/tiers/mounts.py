"""Which filesystem holds a path?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_MEMORY = ("tmpfs", "ramfs")
_ESCAPES = {r"\040": " ", r"\011": "\t", r"\012": "\n", r"\134": "\\"}


@dataclass(frozen=True, slots=True)
class Mount:
    """One line of /proc/self/mountinfo."""

    point: Path
    filesystem: str
    options: frozenset[str]

    @property
    def is_memory(self) -> bool:
        return self.filesystem in _MEMORY


def mount_of(path: Path, mountinfo: Path = Path("/proc/self/mountinfo")) -> Mount:
    """Return the mount that holds `path`, which need not exist."""
    # strict=False resolves the part that exists and keeps the rest.
    real = path.resolve(strict=False)
    found = [mount for mount in _mounts(mountinfo) if real.is_relative_to(mount.point)]
    # A later mount on the same point covers the earlier mount.
    return max(reversed(found), key=lambda mount: len(mount.point.parts))


def nearest_existing(path: Path) -> Path:
    """Return `path`, or the folder above it in which it would be made."""
    while not path.exists():
        path = path.parent
    return path


def _mounts(mountinfo: Path) -> Iterator[Mount]:
    for line in mountinfo.read_text().splitlines():
        # id parent major:minor root POINT OPTIONS [tags] - TYPE source super-options
        before, _, after = line.partition(" - ")
        fields = before.split()
        yield Mount(Path(_unescaped(fields[4])), after.split()[0], frozenset(fields[5].split(",")))


def _unescaped(text: str) -> str:
    for escape, character in _ESCAPES.items():
        text = text.replace(escape, character)
    return text
