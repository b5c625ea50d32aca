"""What is a row of the table? One way to get a workload's tensors, in one small file.

To add a row: a module in `contenders/` with a class like this, and a line in
`contenders/__init__.py`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path

import torch

from bench.workloads import Workload


class Unavailable(Exception):
    """This machine cannot run the contender; the text says what is missing and how to get it."""


class Contender(ABC):
    """Lives in a process of its own, with the servers that it starts.

    `folder` is in tmpfs, empty, and its own.
    """

    #: How the table names it.
    title: str

    def __init__(self, workload: Workload, folder: Path) -> None:
        self.workload = workload
        self.folder = folder

    @abstractmethod
    def setup(self) -> None:
        """Start the servers and store the workload. Raises Unavailable."""

    @abstractmethod
    def call(self) -> Mapping[str, torch.Tensor]:
        """Return all of the workload's tensors; this call is timed."""

    def check(self) -> None:
        """Raise unless a call returns exactly the tensors of the workload."""
        expected, result = self.workload.expected, self.call()
        if result.keys() != expected.keys():
            raise AssertionError(f"returned {sorted(result)}, not {sorted(expected)}")
        for name, tensor in expected.items():
            if result[name].dtype != tensor.dtype or not torch.equal(result[name], tensor):
                raise AssertionError(f"returned another {name} than was stored")

    def finish(self) -> None:  # noqa: B027 - most rows can only be measured as they say
        """Raise if the timed calls were not of the kind that the row says."""

    def close(self) -> None:  # noqa: B027 - a row that starts nothing has nothing to stop
        """Stop what `setup` started, also if `setup` failed half-way."""
