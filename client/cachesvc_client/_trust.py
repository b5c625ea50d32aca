"""Decides which users a daemon on this host may run as for this process to trust it.

The process that listens on the socket receives every Put and answers every Get, and on a shared
host any user may make the path first. Trusted are root, this process's own user, and the user that
`CACHESVC_DAEMON_USER` names.
"""

from __future__ import annotations

import os
import pwd
from collections.abc import Mapping
from dataclasses import dataclass

from cachesvc_client.errors import CacheUnreachable, InvalidSettings

VARIABLE = "CACHESVC_DAEMON_USER"
# What a user namespace shows for each user that it does not map.
_UNMAPPED_UID = 65534


@dataclass(frozen=True)
class Trust:
    """Decides which users to trust. `daemon_uid` is the daemon's user; None = not named."""

    daemon_uid: int | None = None

    def includes(self, uid: int) -> bool:
        return uid in (0, os.geteuid()) or uid == self.daemon_uid

    def check(self, what: str, uid: int) -> None:
        """Raise CacheUnreachable unless `uid`, the owner of `what`, is trusted."""
        if not self.includes(uid):
            raise CacheUnreachable(self.why_not(what, uid), reason="DAEMON_NOT_TRUSTED")

    def why_not(self, what: str, uid: int) -> str:
        """Return why `what` is not trusted, and what to do."""
        own = name_of_user(os.geteuid())
        trusted = f"root or this process's own user {own}"
        if self.daemon_uid is not None:
            trusted = f"root, this process's own user {own} or {VARIABLE}={self.daemon_uid}"
        return f"{what} belongs to user {name_of_user(uid)}, not to {trusted}; {_advice(uid)}"


def trust_of(daemon_user: str | int | None, environment: Mapping[str, str]) -> Trust:
    """Return which users to trust; None = the user that the variable names.

    Raises:
        InvalidSettings: this host has no user of that name.
    """
    named = environment.get(VARIABLE) if daemon_user is None else daemon_user
    if named is None or named == "":
        return Trust()
    if isinstance(named, int) or (named.isascii() and named.isdecimal()):
        return Trust(int(named))
    try:
        return Trust(pwd.getpwnam(named).pw_uid)
    except (KeyError, ValueError) as exc:
        raise InvalidSettings(
            f"daemon_user ({VARIABLE}): this host has no user named {named!r}; "
            "give the name or the number of the user that the daemon runs as",
            reason="UNKNOWN_USER",
        ) from exc


def name_of_user(uid: int) -> str:
    """Return a user's name and number, or only the number for a user without a name."""
    try:
        return f"{pwd.getpwuid(uid).pw_name} (uid {uid})"
    except KeyError:
        return str(uid)


def _advice(uid: int) -> str:
    if uid == _UNMAPPED_UID:
        return (
            f"{_UNMAPPED_UID} stands for every user that this user namespace does not map: run "
            f"the daemon and this process under one mapping; {VARIABLE}={_UNMAPPED_UID} would "
            "trust all of them"
        )
    return f"set {VARIABLE}={uid} if the daemon runs as that user"
