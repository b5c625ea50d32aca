"""The formats that the daemon and its clients share. Standard library only, Python 3.10.

docs/on-disk-format.md describes the formats byte by byte; only this package implements them.
"""
