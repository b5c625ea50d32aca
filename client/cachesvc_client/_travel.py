"""What travels when a client or an entry is pickled or copied?

A client travels as its constructor's arguments and connects anew where it arrives; what it took
from variables is read there again. An entry does not travel: its bytes are this process's mapping.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn


def settings_of(arguments: Mapping[str, Any], address: str) -> dict[str, Any]:
    """Return a constructor's arguments from its `locals()`; a relative target becomes `address`."""
    settings = {name: value for name, value in arguments.items() if name != "self"}
    if settings["target"] is not None:
        settings["target"] = address
    return settings


def state_of(settings: dict[str, Any]) -> dict[str, Any]:
    """Return what travels. Raises TypeError."""
    if settings["credentials"] is not None:
        raise TypeError(
            "a client with credentials=... cannot be pickled or copied, because gRPC's credentials "
            "cannot: give it tls=TlsFiles(...) and token=..., or make it where it is used"
        )
    return settings


def refuse_entry(what: str, key: object) -> NoReturn:
    """Raise the TypeError for an entry that is pickled or copied."""
    raise TypeError(
        f"{what} {key} cannot be pickled or copied: its bytes are a mapping of this process; send "
        "its key and get it there, or send a copy of a field (entry[name].clone(), "
        "entry.image(name)) or of all bytes (bytes(entry.blob))"
    )
