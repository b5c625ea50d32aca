"""Wires one daemon from its parts. `daemon.py` starts and stops them; read it first.

Each other module builds one part; `instruments.py` is what the parts report to. Where to add:

- an origin: its module in `cachesvc/origin`, its `case` in `origins.py`, its name in the settings;
- an HTTP route: `http.py`;
- a background loop: a line in `Daemon._start`, at the step after which it may run.
"""
