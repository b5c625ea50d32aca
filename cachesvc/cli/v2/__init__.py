"""Adopts the entries that V2 left on disk.

`entries.py` reads them, `adoption.py` decides, `command.py` shows.
"""
