"""The commands of `cachesvc`."""

from __future__ import annotations

from typing import Annotated

import typer

from cachesvc import __version__
from cachesvc.cli.commands import (
    completion,
    config,
    get,
    health,
    inspect,
    invalidate,
    put,
    token,
    verify,
    version,
    warm,
)
from cachesvc.cli.conventions import exits
from cachesvc.cli.conventions.options import ConfigFile
from cachesvc.cli.doctor.command import doctor
from cachesvc.cli.serve import command as serve
from cachesvc.cli.stats.command import stats
from cachesvc.cli.v2.command import import_v2


def _serve(config_file: ConfigFile = None) -> None:
    """Run the daemon until SIGTERM or Ctrl-C. SIGHUP reloads its settings.

    At the end the daemon refuses new calls and answers those under way.
    Exit code 2: the settings cannot work; the message names them.
    """
    serve.run(config_file)


app = typer.Typer(
    name=exits.PROGRAM,
    help="The cache daemon, which serves prepared tensors from memory, NVMe and S3, and its tools.",
    epilog=exits.MEANINGS,
    no_args_is_help=True,
    **exits.HOW_COMMANDS_BEHAVE,
)
app.command("serve")(_serve)
app.command("stats")(stats)
app.add_typer(get.app, name="get")
app.add_typer(put.app, name="put")
app.command("warm")(warm.warm)
app.command("invalidate")(invalidate.invalidate)
app.command("inspect")(inspect.inspect)
app.command("verify")(verify.verify)
app.command("import-v2")(import_v2)
app.command("doctor")(doctor)
app.command("health")(health.health)
app.command("config")(config.config)
app.command("version")(version.version)
app.command("completion")(completion.completion)
app.add_typer(token.app, name="token")


def _print_version(asked: bool) -> None:
    if asked:
        print(f"cachesvc {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command that `sys.argv` names, and exit."""
    app(prog_name=exits.PROGRAM)
