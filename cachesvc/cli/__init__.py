"""The command line: one module for each command or small group; `main.py` lists them.

Each command imports what it needs when it runs, so that `--help` stays quick.
"""
