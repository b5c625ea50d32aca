"""Which files does another process hold open? Read from /proc."""

from __future__ import annotations

import os
import re
from pathlib import Path

_DELETED = " (deleted)"
_MAPPING = re.compile(r"[0-9a-f]+-[0-9a-f]+ ")


def process_ids_with_locked(directory: Path) -> list[int]:
    """Return the processes that hold a lock (flock) on `directory`."""
    inode = directory.stat().st_ino
    found = set()
    for line in Path("/proc/locks").read_text().splitlines():
        words = line.split()
        # 1: FLOCK  ADVISORY  WRITE 1234 08:01:5678 0 EOF
        if words[1] == "FLOCK" and int(words[5].rpartition(":")[2]) == inode:
            found.add(int(words[4]))
    return sorted(found)


def deleted_files(pid: int, below: Path) -> list[str]:
    """Return the deleted files below a directory that a process has open or mapped."""
    held = []
    for name in os.listdir(f"/proc/{pid}/fd"):
        try:
            held.append(os.readlink(f"/proc/{pid}/fd/{name}"))
        except FileNotFoundError:
            continue  # closed meanwhile
    for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
        held.extend(line.split(maxsplit=5)[5:])
    return [path for path in held if path.startswith(str(below)) and path.endswith(_DELETED)]


def resident_bytes(pid: int, below: Path) -> int:
    """Return the resident bytes of a process's mappings of files below `directory`."""
    total, is_ours = 0, False
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        if _MAPPING.match(line):
            is_ours = str(below) in line
        elif is_ours and line.startswith("Rss:"):
            total += int(line.split()[1]) * 1024
    return total
