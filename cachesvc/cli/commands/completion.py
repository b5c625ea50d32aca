"""`cachesvc completion SHELL`: how does a shell learn our commands and options?"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from cachesvc.cli.conventions import exits

PROGRAM = exits.PROGRAM
# The variable with which the script asks; typer derives it from the program's name.
_ASKING = f"_{PROGRAM}_complete".upper()


class Shell(StrEnum):
    """The shells for which typer writes scripts on Linux."""

    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


def completion(
    shell: Annotated[Shell, typer.Argument(help="The shell that runs the script.")],
) -> None:
    """Print the script that completes commands and options.

    In this shell: eval "$(cachesvc completion bash)". `cachesvc --install-completion` writes the
    script to the shell's start-up file.
    """
    # typer's own --show-completion prints only the script for the shell that runs it.
    from typer.completion import get_completion_script  # type: ignore[attr-defined]

    print(get_completion_script(prog_name=PROGRAM, complete_var=_ASKING, shell=shell.value))
