"""`python -m cachesvc` is the same as `cachesvc`."""

from __future__ import annotations

from cachesvc.cli.entry import main

if __name__ == "__main__":
    main()
