"""Are the files of a directory the daemon's own, seen by this process as the daemon sees them?

Local hits rely on the link count of the daemon's inodes, on its clock, and on its user. So all
three are checked once, before the first file is opened; a hit has no time for that.
"""

from __future__ import annotations

import contextlib
import os

from cachesvc_client._control import (
    ControlPage,
    is_tmpfs,
    open_control_page,
)
from cachesvc_client._trust import Trust
from cachesvc_format.control_page import L1_DIRECTORY, inode_of, time_namespace

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


class Unusable(Exception):
    """Files cannot be shared there; the text says why."""


def find_files(directory: str, boot_id: bytes | None, trust: Trust) -> tuple[ControlPage, int]:
    """Return the page of the daemon of `directory` and a descriptor of its L1.

    `boot_id` is the daemon's answer; None = not asked. Raises OSError, Unusable.
    """
    with contextlib.ExitStack() as opened:
        fd = os.open(directory, _DIRECTORY)
        opened.callback(os.close, fd)
        try:
            control = open_control_page(fd)
        except OSError as exc:
            raise OSError(exc.errno, exc.strerror, f"{directory}/control") from exc
        if control is None:
            raise Unusable(f"{directory} has no control page of a daemon")
        for uid in (os.fstat(fd).st_uid, control.owner_uid):
            if not trust.includes(uid):
                raise Unusable(trust.why_not(f"the directory {directory}", uid))
        if boot_id is not None and control.boot_id != boot_id:
            raise Unusable(f"the control page in {directory} is another daemon's")
        _check_page(control, directory)
        return control, _open_l1(control, directory, fd)


def _check_page(control: ControlPage, directory: str) -> None:
    """Raise Unusable unless the page is the daemon's own inode and allows local hits."""
    place = control.place()
    if place.page.number and place.page != control.inode:
        raise Unusable(_elsewhere(directory))
    # A daemon of the first release does not name its inodes.
    if not place.page.number and not is_tmpfs(control.inode.device):
        raise Unusable(f"{directory} is not in tmpfs, and its daemon is older than this client")
    # In another time namespace the clock has another zero, and the heartbeat means nothing.
    own = time_namespace()
    if own and place.time_namespace and own != place.time_namespace:
        raise Unusable(f"the daemon of {directory} runs in another time namespace")
    if not control.is_shared():
        raise Unusable(
            f"on the filesystem of {directory} a process that has a file open cannot see that the "
            "file was unlinked; the daemon's runtime directory belongs in tmpfs"
        )
    if control.is_suspended():
        raise Unusable(f"the daemon of {directory} shares no files for now; its log says why")
    if not control.is_serving():
        raise Unusable(f"the daemon of {directory} is not serving")


def _open_l1(control: ControlPage, directory: str, fd: int) -> int:
    l1 = os.open(L1_DIRECTORY, _DIRECTORY | os.O_NOFOLLOW, dir_fd=fd)
    said = control.place().l1
    if said.number and inode_of(os.fstat(l1)) != said:
        os.close(l1)
        raise Unusable(_elsewhere(f"{directory}/{L1_DIRECTORY}"))
    return l1


def _elsewhere(path: str) -> str:
    return (
        f"{path} is not the daemon's own, but seen through another filesystem; mount the "
        "daemon's directory itself (a bind mount)"
    )
