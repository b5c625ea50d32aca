"""Starts the daemon: what the process needs before other imports, and its log.

`logs.py` configures the lines, `log_writer.py` writes them in a thread, and `raw_stderr.py` takes
the lines that libraries write past the log.
"""
