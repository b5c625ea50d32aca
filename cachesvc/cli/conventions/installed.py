"""The contract, and the libraries that the program runs on: which versions are installed?"""

from __future__ import annotations

from importlib import metadata

# The contract's package, which is in every call's path.
CONTRACT = "cachesvc.v1"
LIBRARIES = (
    "cachesvc-client",
    "grpcio",
    "grpcio-health-checking",
    "grpcio-reflection",
    "protobuf",
    "aioboto3",
    "aiobotocore",
    "botocore",
    "aiohttp",
    "isal",
    "kornia-rs",
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


def installed(name: str) -> str | None:
    """Return the version of an installed library; None = not installed."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
