"""Shows what the daemon holds and how it answers.

`command.py` shows one answer, `watch.py` the rates between answers.
"""
