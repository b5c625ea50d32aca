"""Finds what would go wrong with these settings on this host.

Each check is a small function in its subject's module; `checks.py` lists the checks, and
`command.py` shows what they found. A check changes nothing that stays.
"""
