"""How does a row get, at each call, a key that its client has not kept?

Calls go round `IDS`, distinct entries that are all in L1, and the client keeps no more than `KEPT`
of them. When an id's turn comes again, the client has let it go long ago. So each call asks the
daemon, opens the file, reads its header and maps it, as a new worker's first Get of that key does.
Letting another entry go (one close) is in the time too.
"""

from __future__ import annotations

KEPT = 6
IDS = tuple(f"bench-{number}" for number in range(4 * KEPT))
