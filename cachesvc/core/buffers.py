"""How are megabytes put together without holding up everybody else?

A copy holds the interpreter for as long as it takes, and the loop, which serves hits, waits.
numpy lets go of the interpreter while it copies.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cachesvc.core.tensors import Buffer

# What may be copied at once by other means: 0.2 ms.
PIECE_BYTES = 1024 * 1024


def joined(parts: Sequence[Buffer]) -> memoryview:
    """Return `parts` in one piece. For threads: the whole of it takes as long as a join."""
    views = [np.frombuffer(part, np.uint8) for part in parts]
    whole = np.empty(sum(view.nbytes for view in views), np.uint8)
    at = 0
    for view in views:
        whole[at : at + view.nbytes] = view
        at += view.nbytes
    return whole.data
