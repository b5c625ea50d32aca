"""The scripted S3 of the tests in a process of its own, so that it takes no time from the hits.

Run as `python -m bench.misses.faulty_store`. It prints its endpoint, sets the fault that each line
of its input names, and ends with its input.
"""

from __future__ import annotations

import asyncio
import contextlib
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator

import torch

from tests.support.s3.faults import Fault, running_faulty_s3

SetFault = Callable[[Fault], None]


async def serve() -> None:
    # All members of a text are tensors, so one body serves for all of them.
    body = pickle.dumps(torch.arange(64).reshape(1, 64).half())
    async with running_faulty_s3(body) as store:
        print(store.endpoint_url, flush=True)
        while line := await asyncio.to_thread(sys.stdin.readline):
            store.fault = Fault[line.strip()]
            print("set", flush=True)
        store.fault = Fault.NONE


@contextlib.contextmanager
def running() -> Iterator[tuple[str, SetFault]]:
    """Run the store; yield its endpoint, and a function that sets its fault."""
    command = [sys.executable, "-m", __name__]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None
    assert process.stdout is not None
    said_in, said_out = process.stdin, process.stdout

    def set_fault(fault: Fault) -> None:
        print(fault.name, file=said_in, flush=True)
        assert said_out.readline() == "set\n"

    try:
        yield said_out.readline().strip(), set_fault
    finally:
        process.communicate()


if __name__ == "__main__":
    asyncio.run(serve())
