"""The command line: `entry.py` begins the process, `main.py` lists the commands.

A command is a module of `commands/`, or a folder with a `command.py`; `conventions/` is what
commands share. Each command imports what it needs when it runs, so that `--help` stays quick.
"""
