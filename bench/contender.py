"""What a row of the table is: one way to get a workload's tensors, in one small file.

To add one: a module in `contenders/` with a class like this, and a line in
`contenders/__init__.py`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path

from bench.workloads import Fields, Workload


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
        """Start what is needed and store the workload. Raises Unavailable."""

    @abstractmethod
    def call(self) -> Fields:
        """Fetch all of the workload's tensors; this is what is timed."""

    def close(self) -> None:  # noqa: B027 those that start nothing have nothing to stop
        """Stop what `setup` started, also where that failed half-way."""
