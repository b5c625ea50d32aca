"""Promise 9: does a reader of the control page ever see a half-written change?"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cachesvc.tiers.control import ControlPage, replace_control_page
from cachesvc_format.control_page import HEARTBEAT_OFFSET, NAME, PAGE_BYTES

READS = 1_000_000
# Counts how often the heartbeat was smaller than at the read before; prints the count last.
READER = f"""
import mmap, sys
with open(sys.argv[1], "rb") as file:
    page = mmap.mmap(file.fileno(), {PAGE_BYTES}, prot=mmap.PROT_READ)
units = memoryview(page).cast("Q")
print("reads", flush=True)
last = back = 0
for _ in range({READS}):
    now = units[{HEARTBEAT_OFFSET // 8}]
    back += now < last
    last = now
print(back)
"""


@pytest.fixture
def control(tmp_path: Path) -> Iterator[ControlPage]:
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    made = replace_control_page(fd, None)
    yield made
    made.close()
    os.close(fd)


def test_the_heartbeat_never_goes_back_for_its_readers(
    control: ControlPage, tmp_path: Path
) -> None:
    control._write_heartbeat()
    command = (sys.executable, "-c", READER, str(tmp_path / NAME))
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as reader:
        assert reader.stdout is not None
        assert reader.stdout.readline() == "reads\n"
        while reader.poll() is None:
            control._write_heartbeat()
        assert reader.stdout.read() == "0\n"
