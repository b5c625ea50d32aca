"""How a row gets a key that its client has not kept, call after call.

Calls go round `IDS`, distinct entries that all lie in L1, and the client keeps no more
than `KEPT` of them: when an id's turn comes again it was let go long ago, so each call
asks the daemon, opens the file, reads its header and maps it, as a new worker's first Get
of that key does. Letting another entry go (one close) is in the time too.
"""

from __future__ import annotations

KEPT = 6
IDS = tuple(f"bench-{number}" for number in range(4 * KEPT))
