"""The commands that are one module each. `main.py` lists all commands."""
