"""Where the process begins: `cachesvc`, and `python -m cachesvc`.

Imports little. What must be so before anything else is loaded is done here: the standard
streams, and for the daemon its signals.
"""

from __future__ import annotations

import sys
from pathlib import Path

from cachesvc.cli import std_streams

_SERVE = "serve"
_CONFIG = "--config"


def main() -> None:
    """Run the command that `sys.argv` names, and exit."""
    std_streams.prepare()
    arguments = sys.argv[1:]
    command = _serve if arguments[:1] == [_SERVE] else _any_command
    sys.exit(std_streams.code_of(command))


def _serve() -> None:
    """Run the daemon without loading what only the other commands need."""
    from cachesvc.edge.signals import Signals

    Signals.install()
    from cachesvc.cli import serve

    match sys.argv[2:]:
        # As it is started by services: typer, which would take a tenth of the start's
        # processor time, has nothing to say to it.
        case []:
            serve.run(None)
        case [option, path] if option == _CONFIG and not path.startswith("-"):
            serve.run(Path(path))
        case _:
            _any_command()


def _any_command() -> None:
    from cachesvc.cli import main as commands

    commands.main()
