"""Local delivery: finds the daemon's shared files, opens them, and reports hits.

It is used automatically if client and daemon share a host, as the boot id on the control page
shows; otherwise answers are inline, and one log line says why. The protocol:
docs/local-delivery.md.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import re
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone

from cachesvc_client._control import ControlPage
from cachesvc_client._files import Unusable, find_files
from cachesvc_client._kept import (
    DEFAULT_MAX_BYTES,
    DEFAULT_MAX_ENTRIES,
    Kept,
    KeptEntries,
    LocalHits,
    Wanted,
    private_mapping,
)
from cachesvc_client._opened import Opened, opened_file, opened_inline
from cachesvc_client._reading import Attachment, Received, SharedFile
from cachesvc_client._trust import Trust
from cachesvc_client.answers import EntryInfo
from cachesvc_client.errors import UnreadableAnswer
from cachesvc_client.requests import PARTS, TryOnKey
from cachesvc_format.control_page import L1_DIRECTORY
from cachesvc_format.namespaces import HUMAN_NAMESPACES
from cachesvc_proto.v1 import cache_pb2

log = logging.getLogger("cachesvc_client")

UPKEEP_EVERY_S = 0.5
# A client that is not attached looks again at most this often, during a Get.
ATTACH_EVERY_S = 5.0
REPORT_TIMEOUT_S = 1.0
# No step of the upkeep takes longer than a report.
UPKEEP_ENDS_WITHIN_S = 2 * REPORT_TIMEOUT_S
_NAME = re.compile(f"{L1_DIRECTORY}/([A-Za-z0-9][A-Za-z0-9._-]*)")
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEVER_MET_NS = 1 << 63

# Takes the hits and sends them to the daemon. The upkeep's thread calls it, and so do a client's
# close and the process's exit; it may fail silently.
Report = Callable[[], None]


@dataclass(frozen=True)
class LocalOptions:
    """What one client keeps open. `max_entries` also limits its descriptors.

    With `share_mappings` the Gets of a key share one mapping: some us less, for callers that
    promise not to write into the bytes. `enabled` False = always inline.
    """

    max_entries: int = DEFAULT_MAX_ENTRIES
    max_bytes: int = DEFAULT_MAX_BYTES
    share_mappings: bool = False
    enabled: bool = True


class LocalDelivery:
    """One client's local entries. Safe for threads; a forked child starts empty."""

    def __init__(
        self,
        directory: str | None,
        options: LocalOptions,
        report: Report,
        *,
        only_there: bool,
        trust: Trust = Trust(),  # noqa: B008 - frozen
    ) -> None:
        """`directory` is tried first; unless `only_there`, the daemon is asked next."""
        self._trust = trust
        self._directory = directory
        self._only_there = only_there
        self._options = options
        self._report = report
        self._forget()
        _all.add(self)

    def _forget(self) -> None:
        self._lock = threading.Lock()
        self._kept: KeptEntries | None = None
        self._control: ControlPage | None = None
        self._directory_fd = -1  # of L1
        self._next_attach_s = 0.0
        self._inline_because = (
            "no Get was made yet" if self._options.enabled else "shared files are switched off"
        )
        self._logged: set[str] = set()
        self._upkeep: threading.Thread | None = None
        self._ended = threading.Event()

    # ---- before a call

    @property
    def transport(self) -> str:
        """`shared_file`, or `inline: ` and the reason."""
        return "shared_file" if self.is_attached else f"inline: {self._inline_because}"

    @property
    def is_attached(self) -> bool:
        control = self._control
        return control is not None and control.is_serving()

    def hit(self, key: tuple[str, str], needed_ns: int, kind_version: str) -> Opened | None:
        """Return the entry if it may be served without a call."""
        kept = self._kept
        try:
            return None if kept is None else kept.hit(key, needed_ns, kind_version)
        except OSError as exc:
            self._give_up(exc)
            return None

    def hit_tryon(
        self, key: TryOnKey, human_needed_ns: int, versions: Mapping[str, str] | None
    ) -> tuple[Opened, ...] | None:
        """Return person, garment and text if no call is needed for any of them."""
        kept = self._kept
        if kept is None or (versions and not versions.keys() <= PARTS):
            return None  # with an unknown part the call will be refused, with a clear error
        known = versions or {}
        person = (HUMAN_NAMESPACES.get(key.category, ""), key.user_id)
        wanted = (
            Wanted(person, human_needed_ns, known.get("human", "")),
            Wanted(("garment", key.clothing_id), 0, known.get("garment", "")),
            Wanted(("text", key.clothing_id), 0, known.get("text", "")),
        )
        try:
            return kept.hit_all(wanted)
        except OSError as exc:
            self._give_up(exc)
            return None

    def is_current(self, key: tuple[str, str], generation: int) -> bool | None:
        """Return whether that generation is still served; None = ask the daemon."""
        kept = self._kept
        try:
            return None if kept is None else kept.is_current(key, generation)
        except OSError as exc:
            self._give_up(exc)
            return None

    def wants_attach(self, now_s: float) -> bool:
        """Return whether this Get should also look for the daemon's directory."""
        return self._options.enabled and not self.is_attached and now_s >= self._next_attach_s

    def attach_without_asking(self, now_s: float) -> bool:
        """Attach to the known directory; return False if the daemon must be asked."""
        known = self._directory
        if known is None:
            return False
        if self.attach(known, None, now_s):
            return True
        if self._only_there:
            self._log_why()
        return self._only_there

    def attach_where(self, attachment: Attachment | None, now_s: float) -> None:
        """Attach to the directory that the daemon named; None = the daemon is too old for that."""
        if attachment is None:
            self._next_attach_s = now_s + ATTACH_EVERY_S
            self._inline_because = "this daemon has no shared files"
            self._log_why()
        elif not self.attach(attachment.runtime_dir, attachment.boot_id, now_s):
            self._log_why()

    def attach(self, directory: str, boot_id: bytes | None, now_s: float) -> bool:
        """Attach to the daemon whose control page lies in `directory`.

        `boot_id` is the daemon's; None = answers will show it. Returns whether shared files can be
        used from now on; otherwise `transport` says why.
        """
        with self._lock:
            if self._ended.is_set():
                return False
            self._next_attach_s = now_s + ATTACH_EVERY_S
            try:
                control, fd = find_files(directory, boot_id, self._trust)
            except OSError as exc:
                return self._stay_inline(f"{exc.filename or directory}: {exc.strerror}")
            except Unusable as exc:
                return self._stay_inline(str(exc))
            self._detach()
            self._directory_fd = fd
            self._control = control
            self._kept = KeptEntries(
                control,
                self._options.max_entries,
                self._options.max_bytes,
                share_mappings=self._options.share_mappings,
            )
            self._start_upkeep()
        return True

    def _give_up(self, exc: OSError) -> None:
        """Detach from the daemon's files: `fstat` of kept files fails."""
        with self._lock:
            if self._kept is not None:
                self._pause(f"shared files cannot be used: {exc.strerror}")

    def _stay_inline(self, why: str) -> bool:
        self._inline_because = why
        return False

    def _log_why(self) -> None:
        """Log once for each reason why answers are inline, after the last attempt to attach."""
        why = self._inline_because
        if why not in self._logged and not self._ended.is_set():
            self._logged.add(why)
            log.warning("answers are sent inline, not as shared files: %s", why)

    # ---- after an answer

    def accept(self, received: Received, asked_ns: int) -> Opened | None:
        """Return the received entry, or None if its file cannot be opened or is gone.

        `asked_ns` (CLOCK_BOOTTIME) is from before the call, so that the call's time counts. Raises
        UnreadableAnswer.
        """
        if received.file is None:
            return opened_inline(received)
        named = _NAME.fullmatch(received.file.name)
        if named is None:
            raise UnreadableAnswer("the shared file in the answer has a name that is not valid")
        try:
            found = self._open(named[1], received.boot_id)
            return found and _take(*found, received.info, received.file, asked_ns)
        except OSError as exc:
            # No descriptor is left, for example: close those of the kept entries.
            with self._lock:
                self._pause(f"shared files cannot be used: {exc.strerror}")
            return None

    def _open(self, name: str, boot_id: bytes) -> tuple[KeptEntries, int] | None:
        """Return the open file, and where to keep it; None if it is gone. Raises OSError."""
        with self._lock:
            control, kept = self._control, self._kept
            if control is None or kept is None:
                return None
            if boot_id != control.boot_id:
                if control.is_serving():
                    self._pause("the control page that was found is another daemon's")
                else:
                    self._detach()
                    self._next_attach_s = 0.0
                return None
            try:
                fd = _open_file(name, self._directory_fd)
            except FileNotFoundError:
                return None  # unlinked since the answer
        # A restarted daemon may use the name again for another entry (in containers pids repeat).
        # It closes this page before it writes its first file, so check the page after the open.
        if not control.is_serving():
            os.close(fd)
            return None
        return kept, fd

    def _pause(self, why: str) -> None:
        self._detach()
        self._next_attach_s = time.monotonic() + ATTACH_EVERY_S
        self._stay_inline(why)
        self._log_why()

    def accept_all(self, parts: tuple[Received, ...], asked_ns: int) -> tuple[Opened, ...] | None:
        """As `accept`, for several entries; None if one of them is None."""
        accepted = []
        for part in parts:
            entry = self.accept(part, asked_ns)
            if entry is None:
                return None
            accepted.append(entry)
        return tuple(accepted)

    # ---- upkeep

    def _start_upkeep(self) -> None:
        if self._upkeep is None:
            this = weakref.ref(self)
            self._upkeep = threading.Thread(
                target=_keep_up, args=(this, self._ended), name="cachesvc-local", daemon=True
            )
            self._upkeep.start()

    def step(self) -> None:
        """Drop unlinked and expired entries, and report hits."""
        kept = self._kept
        if kept is None:
            return
        kept.sweep()
        if not self.is_attached:
            with self._lock:
                if kept is self._kept:
                    self._detach()
            return
        self.flush()

    def flush(self) -> None:
        """Report the hits so far."""
        if self.is_attached:
            self._report()

    def take_hits(self) -> list[LocalHits]:
        """Return the hits that are not reported yet."""
        kept = self._kept
        return kept.take_hits() if kept is not None else []

    def end_upkeep(self) -> None:
        """Report the last hits, before the channel is closed. May take seconds.

        U is the upkeep, C closes. Without the wait for U:

            U: takes the hits | C: finds none, closes the channel | U: reports, on a closed one
        """
        self._ended.set()
        upkeep = self._upkeep
        if upkeep is not None and upkeep is not threading.current_thread():
            upkeep.join(UPKEEP_ENDS_WITHIN_S)
        self.flush()

    def close(self) -> None:
        """Drop all entries. Bytes that callers hold stay valid."""
        self._ended.set()
        with self._lock:
            self._detach()

    def _detach(self) -> None:
        if self._kept is not None:
            self._kept.close()
            os.close(self._directory_fd)
        self._kept, self._control, self._directory_fd = None, None, -1

    def __del__(self) -> None:
        # A client that was never closed; `KeptEntries.__del__` closes the files.
        if self._directory_fd >= 0:
            os.close(self._directory_fd)

    def start_anew(self) -> None:
        """Forget everything in a forked child: threads are gone, locks may be held."""
        if self._kept is not None:
            self._kept.abandon()
            os.close(self._directory_fd)
        self._forget()


def needed_ns(origin_after: datetime | None) -> int:
    """Return `origin_after` in wall nanoseconds; a moment in the future counts as now."""
    if origin_after is None:
        return 0
    if origin_after.tzinfo is None:
        return _NEVER_MET_NS  # the call will be refused, with a clear error
    since = origin_after - datetime(1970, 1, 1, tzinfo=timezone.utc)
    asked_ns = (since.days * 86_400 + since.seconds) * 1_000_000_000 + since.microseconds * 1000
    return min(asked_ns, time.time_ns())


def _open_file(name: str, directory_fd: int) -> int:
    """Open a shared file by its name. Raises OSError.

    The daemon closes a file to readers right after unlinking it, and this `open` may come between:

        A: finds the name | D: unlinks, sets the mode to 0 | A: is refused -> looks again: no name
    """
    try:
        return os.open(name, _FILE, dir_fd=directory_fd)
    except PermissionError:
        return os.open(name, _FILE, dir_fd=directory_fd)


def _take(
    kept: KeptEntries,
    fd: int,
    info: EntryInfo | cache_pb2.EntryInfo,
    file: SharedFile,
    asked_ns: int,
) -> Opened | None:
    """Map the file, and keep it for the next Get; None if it was unlinked. Takes over `fd`.

    A is this function, D the daemon. D unlinks before it punches, so a file that still has its name
    after the read was not erased before:

        A: opens | D: erases: unlinks, punches | A: reads zeros, for a header or for the fields
    """
    with contextlib.ExitStack() as unless_kept:
        unless_kept.callback(os.close, fd)
        try:
            # mmap also refuses a file that is too short; the header must cover every byte.
            entry = opened_file(info, fd, private_mapping(fd, info.size_bytes))
        except ValueError as exc:
            raise UnreadableAnswer("the shared file is shorter than the answer says") from exc
        except UnreadableAnswer:
            if os.fstat(fd).st_nlink:
                raise
            return None
        if not os.fstat(fd).st_nlink:
            return None
        unless_kept.pop_all()
    kept.keep(
        (info.key.namespace, info.key.id),
        Kept(
            fd=fd,
            info=info,
            layout=entry.layout,
            expires_ns=asked_ns + file.expires_in_ns,
            origin_ns=file.origin_ns,
            newest_needed_ns=file.origin_ns + file.grace_ns,
        ),
    )
    return entry


def _keep_up(this: weakref.ref[LocalDelivery], ended: threading.Event) -> None:
    """Run a client's upkeep until the client is closed or collected."""
    while not ended.wait(UPKEEP_EVERY_S):
        local = this()
        if local is None:
            return
        try:
            local.step()
        except OSError as exc:
            local._give_up(exc)
        del local


_all: weakref.WeakSet[LocalDelivery] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for local in list(_all):
        local.start_anew()


def _at_exit() -> None:
    for local in list(_all):
        local.end_upkeep()
        local.close()


os.register_at_fork(after_in_child=_after_fork_in_child)
atexit.register(_at_exit)
