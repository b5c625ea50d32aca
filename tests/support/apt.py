"""How is apt-get run so that its progress shows, and dpkg never ends half-way?

- apt-get runs in a session of its own and writes into a file: no Ctrl-C reaches it, and no terminal
  or reader that goes away. Its progress is shown from that file.
- A download may be interrupted. While dpkg runs, a signal waits for its end.
- It waits for a lock that another apt holds, and names the holder.
"""

from __future__ import annotations

import contextlib
import fcntl
import math
import os
import re
import signal
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import IO, Any, Self

# An upgrade of the whole machine may hold the lock for that long.
LOCK_WITHIN_S = 900
_LOOK_EVERY_S = 0.25
_SAY_EVERY_S = 60
# The steps of a download or an unpacking that are printed where a line cannot be overwritten.
_SAY_EVERY_PERCENT = 5
# Relative to the root. apt-get waits for dpkg's lock by itself, and never for the other two.
_LOCKS = (
    "var/lib/dpkg/lock-frontend",
    "var/lib/dpkg/lock",
    "var/lib/apt/lists/lock",
    "var/cache/apt/archives/lock",
)
_SIZES = ("Need to get", "After this operation")
_NOTHING = "Need to get 0 B"  # it was downloaded before
_STATUS = re.compile(r"(?:dlstatus|pmstatus):.*?:(\d+)(?:\.\d+)?:(.*)")
_FLOCK = struct.Struct("hhqqi")
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
_ENVIRONMENT = {
    "DEBIAN_FRONTEND": "noninteractive",
    "NEEDRESTART_SUSPEND": "1",  # Ubuntu would otherwise restart services, and ask before
    "LC_ALL": "C.UTF-8",
}
# dpkg does not work without the programs there, and not every root has them in PATH.
_ADMINS_FOLDERS = "/usr/local/sbin:/usr/sbin:/sbin"
_OPTIONS = (
    "-y",
    "--no-install-recommends",
    "--no-remove",  # packages that somebody installed stay
    "-o", f"DPkg::Lock::Timeout={LOCK_WITHIN_S}",
    "-o", "Acquire::Retries=2",
    "-o", "Dpkg::Options::=--force-confold",
)  # fmt: skip


class Interrupted(Exception):
    """A signal asked for the end; `status` is the exit status that a shell gives it."""

    def __init__(self, signum: int) -> None:
        super().__init__(signal.Signals(signum).name)
        self.status = 128 + signum


class Apt:
    """apt-get below `root`, where the locks and dpkg's state are read as well.

    Within its `with`, a signal ends a download and waits for dpkg. The next step then raises
    Interrupted.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._updated = False
        self._signum: int | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._may_be_ended = True
        self._before: dict[int, Any] = {}
        self.gave_up = False

    def __enter__(self) -> Self:
        self._before = {signum: signal.signal(signum, self._note) for signum in _SIGNALS}
        return self

    def __exit__(self, *exc_info: object) -> None:
        for signum, handler in self._before.items():
            signal.signal(signum, handler)

    def why_unsound(self) -> str | None:
        """Return the fault and the remedy if dpkg was interrupted, otherwise None."""
        updates = self._root / "var/lib/dpkg/updates"
        journal = updates.is_dir() and any(path.name.isdigit() for path in updates.iterdir())
        audit = subprocess.run(["dpkg", "--audit"], capture_output=True, text=True, check=False)
        if not journal and not audit.stdout.strip():
            return None
        said = f"\n{audit.stdout.rstrip()}" if audit.stdout.strip() else ""
        return (
            "dpkg was interrupted, and installs nothing before it is mended: run "
            f"`dpkg --configure -a` as root, then `make programs`.{said}"
        )

    def install(self, packages: Sequence[str]) -> None:
        """Install the packages, or return why not. Raises Interrupted."""
        download = ("install", "--download-only", *packages)
        if not self._lists_are_there():
            self._update()
        there = self._run("Downloading", *download)
        if not there and not self._updated:
            # The lists may be older than the packages on the servers.
            there = self._update() and self._run("Downloading", *download)
        if there:
            self._run("Installing", "install", *packages, may_be_ended=False)

    def _lists_are_there(self) -> bool:
        return any((self._root / "var/lib/apt/lists").glob("*Packages*"))

    def _update(self) -> bool:
        self._updated = True
        return self._run("Reading the lists of packages", "update")

    def _run(self, title: str, *command: str, may_be_ended: bool = True) -> bool:
        """Run apt-get and show its progress. Raises Interrupted once it has ended."""
        if self.gave_up or not self._wait_for_locks():
            return False
        with (
            tempfile.NamedTemporaryFile("w+", prefix="apt-get-") as said,
            tempfile.NamedTemporaryFile("w+", prefix="apt-status-") as status,
        ):
            self._may_be_ended = may_be_ended
            with open(status.name, "a") as append:
                process = subprocess.Popen(
                    ["apt-get", *_OPTIONS, "-o", f"APT::Status-Fd={append.fileno()}", *command],
                    env=_environment(),
                    stdin=subprocess.DEVNULL,
                    stdout=said,
                    stderr=subprocess.STDOUT,
                    pass_fds=(append.fileno(),),
                    start_new_session=True,
                )
            self._process = process
            if self._signum is not None:  # the signal came while apt-get was started
                self._note(self._signum, None)
            _show(title, process, status, Path(said.name))
            self._process, self._may_be_ended = None, True
            self._raise_interrupted()
            if process.returncode:
                said.seek(0)
                errors = [line for line in said if line.startswith(("E:", "Err:"))]
                _print(f"apt-get {command[0]} failed:\n{''.join(errors[-8:])}".rstrip())
            return process.returncode == 0

    def _note(self, signum: int, frame: FrameType | None) -> None:
        self._signum = signum
        if not self._may_be_ended:
            _print("This ends as soon as dpkg has finished, which would otherwise be left broken.")
        elif self._process is not None and self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGINT)

    def _raise_interrupted(self) -> None:
        if self._signum is not None:
            raise Interrupted(self._signum)

    def _wait_for_locks(self) -> bool:
        ends_s, told_s = time.monotonic() + LOCK_WITHIN_S, -math.inf
        while (held := self._held_lock()) is not None:
            now_s = time.monotonic()
            if now_s > ends_s:
                _print(f"Gave up after {LOCK_WITHIN_S // 60} minutes: {held}.")
                self.gave_up = True
                return False
            if now_s > told_s + _SAY_EVERY_S:
                _print(f"Waiting, {(ends_s - now_s) / 60:.0f} minutes at most: {held}.")
                told_s = now_s
            time.sleep(_LOOK_EVERY_S)
            self._raise_interrupted()
        self._raise_interrupted()
        return True

    def _held_lock(self) -> str | None:
        """Return who holds one of the locks, or None."""
        for name in _LOCKS:
            with contextlib.suppress(OSError), (self._root / name).open("rb") as file:
                ask = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
                kind, _, _, _, pid = _FLOCK.unpack(fcntl.fcntl(file, fcntl.F_GETLK, ask))
                if kind != fcntl.F_UNLCK:
                    return f"process {pid} ({_name_of(pid)}) holds /{name}"
        return None


def _environment() -> dict[str, str]:
    path = f"{os.environ.get('PATH', os.defpath)}:{_ADMINS_FOLDERS}"
    return os.environ | _ENVIRONMENT | {"PATH": path}


def _name_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return "in another container"


def _show(title: str, process: subprocess.Popen[bytes], status: IO[str], said: Path) -> None:
    """Show apt-get's progress until its end: on a terminal one line, otherwise a line now and
    then.
    """
    is_terminal = sys.stdout.isatty()
    said_percent = -_SAY_EVERY_PERCENT
    ended = False
    with said.open() as sizes:
        while not ended:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_LOOK_EVERY_S)
                ended = True
            lines = [line.rstrip() for line in sizes if line.startswith(_SIZES)]
            if lines and not lines[0].startswith(_NOTHING):
                _print("\n".join(lines))
            for percent, text in _progress(title, status.readlines()):
                if is_terminal:
                    _print(f"\r\033[K{text[:100]}", end="")
                elif percent >= said_percent + _SAY_EVERY_PERCENT:
                    said_percent = percent // _SAY_EVERY_PERCENT * _SAY_EVERY_PERCENT
                    _print(text)
    if is_terminal:
        _print("\r\033[K", end="")


def _progress(title: str, lines: Sequence[str]) -> Iterator[tuple[int, str]]:
    """Read apt's status: dlstatus:3:12.5:Retrieving file 3 of 214 (40s remaining)."""
    for line in lines:
        if (match := _STATUS.match(line)) is not None:
            percent = int(match[1])
            yield percent, f"{title}: {percent:3} % {match[2].strip()}"


def _print(text: str, end: str = "\n") -> None:
    # The reader may be gone, and a signal may come in the middle of a line. dpkg must end first.
    with contextlib.suppress(OSError, RuntimeError):
        print(text, end=end, flush=True)
