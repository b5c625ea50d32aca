"""`cachesvc version`: show the versions of the program, the contract and the libraries."""

from __future__ import annotations

import platform

from cachesvc import __version__
from cachesvc.cli.conventions import output
from cachesvc.cli.conventions.installed import CONTRACT, LIBRARIES, installed
from cachesvc.cli.conventions.options import Json


def version(as_json: Json = False) -> None:
    """Show the versions of the program, the contract, Python and the libraries."""
    libraries = {name: installed(name) for name in LIBRARIES}
    if as_json:
        output.print_json(
            {
                "version": __version__,
                "contract": CONTRACT,
                "python": platform.python_version(),
                "libraries": libraries,
            }
        )
        return
    print(f"cachesvc {__version__}")
    print(f"contract {CONTRACT}, Python {platform.python_version()}")
    print(", ".join(f"{name} {found or 'missing'}" for name, found in libraries.items()))
