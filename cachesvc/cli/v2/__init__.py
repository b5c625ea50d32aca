"""Adopting what V2 left on disk.

`entries.py` reads it, `adoption.py` decides, `command.py` shows.
"""
