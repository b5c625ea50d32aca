"""Where the process begins: `cachesvc`, and `python -m cachesvc`.

This module imports little. It prepares what must be ready before other imports: the standard
streams, and the daemon's signals.
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
    """Run the daemon without loading what only other commands need."""
    from cachesvc.edge.signals import Signals

    Signals.install()
    from cachesvc.cli.serve import command

    match sys.argv[2:]:
        # The arguments of services need no typer, which would take a tenth of the start's processor
        # time.
        case []:
            command.run(None)
        case [option, path] if option == _CONFIG and not path.startswith("-"):
            command.run(Path(path))
        case _:
            _any_command()


def _any_command() -> None:
    from cachesvc.cli.main import main as run

    run()
