"""What lies where on the control page, which shows workers that their daemon lives?

One page in the runtime directory, little endian. The daemon writes it and never moves a
field; every worker maps the page. When a local hit is allowed: docs/local-delivery.md.
"""

from __future__ import annotations

import os
import struct
from enum import IntEnum
from mmap import mmap
from pathlib import Path
from typing import NamedTuple

NAME = "control"
# The shared files' directory, beside the page.
L1_DIRECTORY = "l1"
PAGE_BYTES = 4096
MAGIC = b"cachesvc"
VERSION = 1
# Magic, version, state, boot id.
HEADER = struct.Struct("<8sII16s")
STATE_OFFSET = 12
# CLOCK_MONOTONIC, ns.
HEARTBEAT_OFFSET = HEADER.size
# State and heartbeat in one read, from STATE_OFFSET on.
STATE_AND_HEARTBEAT = struct.Struct("<I16xQ")
# A daemon counts as alive for so long after its last heartbeat.
HEARTBEAT_LIMIT_NS = 1_000_000_000

_PLACE = struct.Struct("<5Q")
_PLACE_OFFSET = 40


class State(IntEnum):
    SERVING = 1
    CLOSED = 2
    # Calls are answered without local hits: a file of L1 could not be unlinked, or others could
    # make hard links to the files.
    SUSPENDED = 3
    # No local hits: an open file's link count does not fall on this filesystem.
    NOT_SHARED = 4


class Inode(NamedTuple):
    """One file or directory, whatever its path. Each filesystem has a device of its own."""

    device: int
    number: int


def inode_of(status: os.stat_result) -> Inode:
    return Inode(status.st_dev, status.st_ino)


class Place(NamedTuple):
    """Where the daemon is, as the daemon sees it; all 0 on a page of the first release."""

    page: Inode
    l1: Inode
    time_namespace: int


def write_place(page: mmap, place: Place) -> None:
    _PLACE.pack_into(page, _PLACE_OFFSET, *place.page, *place.l1, place.time_namespace)


def read_place(page: mmap) -> Place:
    device, number, l1_device, l1_number, namespace = _PLACE.unpack_from(page, _PLACE_OFFSET)
    return Place(Inode(device, number), Inode(l1_device, l1_number), namespace)


def time_namespace() -> int:
    """Return the number of this process's time namespace; 0 if the kernel does not say."""
    try:
        return Path("/proc/self/ns/time").stat().st_ino
    except OSError:
        return 0
