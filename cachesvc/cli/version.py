"""`cachesvc version`: show the versions of the program, the contract and the libraries."""

from __future__ import annotations

import platform
from importlib import metadata

from cachesvc import __version__
from cachesvc.cli import output
from cachesvc.cli.options import Json

# The contract's package, which is in every call's path.
CONTRACT = "cachesvc.v1"
LIBRARIES = (
    "grpcio",
    "protobuf",
    "aioboto3",
    "aiobotocore",
    "aiohttp",
    "numpy",
    "pillow",
    "prometheus-client",
    "pydantic",
    "pydantic-settings",
    "rich",
    "safetensors",
    "structlog",
    "typer",
    "xxhash",
)


def version(as_json: Json = False) -> None:
    """Show the version, Python's and the libraries'."""
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


def installed(name: str) -> str | None:
    """Return the version of an installed library; None = not installed."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
