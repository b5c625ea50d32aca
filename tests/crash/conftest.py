"""What do the tests of crashes need from the machine?"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.lossy_disk import lossy_disk, why_not_available

CanLosePower = Callable[[str], None]


@pytest.fixture
def can_lose_power(tmp_path: Path) -> CanLosePower:
    """Skip the test if a filesystem of this kind cannot be mounted and shut down."""

    def check(kind: str) -> None:
        if reason := why_not_available(kind):
            pytest.skip(f"power loss on {kind}: {reason}")
        try:
            with lossy_disk(kind, tmp_path / "probe"):
                pass
        except OSError as exc:
            pytest.skip(f"power loss on {kind}: {exc}")

    return check
