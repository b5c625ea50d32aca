"""Local delivery: finds the daemon's shared files, opens them, and reports hits.

It is used automatically if client and daemon share a host, as the boot id on the control page
shows; otherwise answers are inline, and one log line says why. The protocol:
docs/local-delivery.md.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from cachesvc_client._arguments import check_settings
from cachesvc_client._control import ControlPage
from cachesvc_client._descriptors import Owner, owner_of
from cachesvc_client._files import Unusable, find_files
from cachesvc_client._kept import (
    DEFAULT_MAX_BYTES,
    DEFAULT_MAX_ENTRIES,
    KeptEntries,
    LocalHits,
    Wanted,
)
from cachesvc_client._opened import Opened, opened_inline
from cachesvc_client._reading import Attachment, Received
from cachesvc_client._shared_file import keep_file, name_of, open_file
from cachesvc_client._trust import Trust
from cachesvc_client.requests import TryOnKey
from cachesvc_format.namespaces import HUMAN_NAMESPACES

log = logging.getLogger("cachesvc_client")

UPKEEP_EVERY_S = 0.5
# A client that is not attached looks again at most this often, during a Get.
ATTACH_EVERY_S = 5.0
REPORT_TIMEOUT_S = 1.0
# No step of the upkeep takes longer than a report.
UPKEEP_ENDS_WITHIN_S = 2 * REPORT_TIMEOUT_S

# Takes the hits and sends them to the daemon. The upkeep's thread calls it, and so do a client's
# close and the process's exit; it may fail silently.
Report = Callable[[], None]


@dataclass(frozen=True)
class LocalOptions:
    """What one client keeps open. `max_entries` also limits its descriptors.

    With `share_mappings` the Gets of a key share one mapping: some us less, for callers that
    promise not to write into the bytes. `enabled` False = always inline. Raises InvalidSettings.
    """

    max_entries: int = DEFAULT_MAX_ENTRIES
    max_bytes: int = DEFAULT_MAX_BYTES
    share_mappings: bool = False
    enabled: bool = True

    def __post_init__(self) -> None:
        check_settings(vars(self))


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
        self._lock = threading.RLock()  # as in KeptEntries
        self._kept: KeptEntries | None = None
        self._control: ControlPage | None = None
        self._l1: Owner | None = None  # its directory
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
        if kept is None:
            return None
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

    def attach_to_known(self, now_s: float) -> bool:
        """Attach to the known directory; return False if the daemon must be asked."""
        known = self._directory
        if known is None:
            return False
        if self.attach(known, None, now_s):
            return True
        if self._only_there:
            self._log_why()
        return self._only_there

    def attach_to_named(self, attachment: Attachment | None, now_s: float) -> None:
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
            self._l1 = owner_of(fd)
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
        name = name_of(received.file)
        try:
            found = self._open(name, received.boot_id)
            return found and keep_file(*found, received.info, received.file, asked_ns)
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
            assert self._l1 is not None
            try:
                fd = open_file(name, self._l1.fileno())
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
            upkeep = threading.Thread(
                target=_keep_up, args=(this, self._ended), name="cachesvc-local", daemon=True
            )
            upkeep.start()
            self._upkeep = upkeep

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
        kept, directory = self._kept, self._l1
        self._kept, self._control, self._l1 = None, None, None
        if kept is not None:
            kept.close()
        if directory is not None:
            directory.close()

    def reset_after_fork(self) -> None:
        """Forget everything in a forked child: threads are gone, locks may be held."""
        if self._kept is not None:
            self._kept.abandon()
        self._forget()


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
        local.reset_after_fork()


def _at_exit() -> None:
    for local in list(_all):
        local.end_upkeep()
        local.close()


os.register_at_fork(after_in_child=_after_fork_in_child)
atexit.register(_at_exit)
