"""`cachesvc version`: show everything of this installation that a report of a fault needs."""

from __future__ import annotations

import platform
import sqlite3
import ssl
from typing import Any

from cachesvc import __version__
from cachesvc.cli.conventions import output
from cachesvc.cli.conventions.installed import CONTRACT, LIBRARIES, installed
from cachesvc.cli.conventions.options import Json


def version(as_json: Json = False) -> None:
    """Show the versions of the program, its formats, the libraries and the host."""
    found = _found()
    if as_json:
        output.print_json(found)
        return
    print(f"cachesvc {found['version']}")
    print(f"revision {found['revision']}")
    print(f"contract {found['contract']}, {_line(found['formats'])}")
    print(f"Python {found['python']}, SQLite {found['sqlite']}, {found['openssl']}")
    print(f"{found['platform']}, {found['libc']}, protobuf in {found['protobuf_in']}")
    print(_line(found["libraries"]))


def _found() -> dict[str, Any]:
    from google.protobuf.internal import api_implementation

    from cachesvc.revision import checkout_revision, revision

    return {
        "version": __version__,
        "revision": revision() or checkout_revision() or "unknown",
        "contract": CONTRACT,
        "formats": _formats(),
        "python": f"{platform.python_version()} ({platform.python_implementation()})",
        "sqlite": sqlite3.sqlite_version,
        "openssl": ssl.OPENSSL_VERSION,
        "protobuf_in": api_implementation.Type(),
        # The kernel too: what tmpfs, leases and hard links do depends on it.
        "platform": platform.platform(),
        "libc": " ".join(platform.libc_ver()),
        "libraries": {name: installed(name) for name in LIBRARIES},
    }


def _formats() -> dict[str, int]:
    """Return the versions of docs/on-disk-format.md."""
    from cachesvc.tiers.catalog_schema import SCHEMA_VERSION
    from cachesvc_format import blob, control_page

    return {
        "blob": int(blob.FORMAT),
        "catalog": SCHEMA_VERSION,
        "control_page": control_page.VERSION,
    }


def _line(versions: dict[str, Any]) -> str:
    return ", ".join(f"{name} {found or 'missing'}" for name, found in versions.items())
