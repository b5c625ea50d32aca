"""How does a test act between an answer and what the client does with it?"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from cachesvc_client._link import Link
from cachesvc_client.requests import Call, Upload

A = TypeVar("A")


class InterposedLink:
    """The real link; after the first answer that names a shared file it calls `then`."""

    def __init__(self, link: Link, then: Callable[[], Any]) -> None:
        self._link = link
        self._then = then
        self._done = False
        self.calls = 0

    def ask(self, call: Call[A], timeout_s: float) -> A:
        answer = self._link.ask(call, timeout_s)
        self.calls += 1
        if not self._done and getattr(answer, "file", None) is not None:
            self._done = True
            self._then()
        return answer

    def collect(self, call: Call[A], timeout_s: float) -> A:
        return self._link.collect(call, timeout_s)

    def follow(self, call: Call[A], timeout_s: float) -> Iterator[A]:
        return self._link.follow(call, timeout_s)

    def send(self, upload: Upload[A], timeout_s: float) -> A:
        return self._link.send(upload, timeout_s)

    def close(self) -> None:
        self._link.close()
