"""What the daemon and its clients write and read alike. Standard library only, Python 3.10.

docs/on-disk-format.md describes the formats byte by byte; each of them stands once, here.
"""
