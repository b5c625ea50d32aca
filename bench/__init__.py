"""Compares ways of getting one cached entry into a process. Start: README.md."""
