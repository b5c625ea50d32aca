"""What does each signal that can reach the daemon do?

Every signal has a decision here; docs/operating.md has the same table for people. A signal without
a decision would get the kernel's default. Most signals then end the process at once, without a
drain, and leave sockets and L1's files behind.

This module imports little and comes before all others: a signal that comes during the imports also
needs a decision.
"""

from __future__ import annotations

import contextlib
import signal
import socket
from collections.abc import Callable, Iterable
from enum import Enum
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    import asyncio


class Decision(Enum):
    """What a signal does to the daemon."""

    DRAIN = "the daemon drains and ends"
    RELOAD = "files and the log level are read again"
    NOTED = "nothing, and one line in the log"
    IGNORED = "nothing"
    STOPS = "the process stops until SIGCONT"
    ENDS = "the process ends at once"


# SIGXCPU says that the processor time allowed is used up, and SIGPWR that the power fails, or
# that a container is asked to halt: both announce the end.
_DRAIN = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGXCPU, signal.SIGPWR)
# SIGIO comes when a process opens a file on which a write lease is held: any member of the socket's
# group can cause any number of them. SIGTTIN and SIGTTOU would stop a daemon that was
# put into the background of a terminal.
_IGNORED = (
    signal.SIGIO,
    signal.SIGPIPE,
    signal.SIGXFSZ,
    signal.SIGTTIN,
    signal.SIGTTOU,
    signal.SIGURG,
    signal.SIGWINCH,
    signal.SIGCHLD,
    signal.SIGCONT,
)
_NOTED = (
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGALRM,
    signal.SIGVTALRM,
    signal.SIGPROF,
    signal.SIGSTKFLT,
    *range(signal.SIGRTMIN, signal.SIGRTMAX + 1),
)
_STOPS = (signal.SIGSTOP, signal.SIGTSTP)
# SIGKILL cannot be caught; the others report a defect, or systemd's watchdog sends them.
_ENDS = (
    signal.SIGKILL,
    signal.SIGABRT,
    signal.SIGSEGV,
    signal.SIGBUS,
    signal.SIGFPE,
    signal.SIGILL,
    signal.SIGTRAP,
    signal.SIGSYS,
)
DECISIONS: dict[int, Decision] = {
    signal.SIGHUP: Decision.RELOAD,
    **dict.fromkeys(_DRAIN, Decision.DRAIN),
    **dict.fromkeys(_IGNORED, Decision.IGNORED),
    **dict.fromkeys(_NOTED, Decision.NOTED),
    **dict.fromkeys(_STOPS, Decision.STOPS),
    **dict.fromkeys(_ENDS, Decision.ENDS),
}
# The kernel's default ignores these; SIG_IGN would change their meaning for a waiting parent.
_LEFT_ALONE = frozenset({signal.SIGCHLD, signal.SIGCONT, signal.SIGURG, signal.SIGWINCH})
_HANDLED = frozenset({Decision.DRAIN, Decision.RELOAD, Decision.NOTED})
# A shell that starts a background job sets these to be ignored, so that a Ctrl-C in its
# terminal does not reach the job.
_STAY_IGNORED = frozenset({signal.SIGINT, signal.SIGQUIT})


class Signals:
    """Keeps signals until the event loop takes them. One for each process."""

    _of_the_process: ClassVar[Signals | None] = None

    def __init__(self) -> None:
        self._pending: list[int] = []
        self._deliver: Callable[[int], None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._waking, self._woken = socket.socketpair()

    @classmethod
    def install(cls) -> Signals:
        """Decide every signal from now on. Call it in the main thread, as early as possible.

        A process has one `Signals`: a second call returns the same.
        """
        if cls._of_the_process is not None:
            return cls._of_the_process
        signals = cls._of_the_process = cls()
        for number, decision in DECISIONS.items():
            if number in _STAY_IGNORED and signal.getsignal(number) is signal.SIG_IGN:
                continue
            if decision in _HANDLED:
                signal.signal(number, signals._keep)
            elif decision is Decision.IGNORED and number not in _LEFT_ALONE:
                signal.signal(number, signal.SIG_IGN)
        for end in (signals._waking, signals._woken):
            end.setblocking(False)
        # The byte wakes the loop, also if the kernel gave the signal to another thread.
        signal.set_wakeup_fd(signals._waking.fileno(), warn_on_full_buffer=False)
        # A parent may have blocked signals.
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        return signals

    def is_pending(self, decision: Decision) -> bool:
        """Return whether a signal of that decision waits to be delivered."""
        return any(DECISIONS[number] is decision for number in self._pending)

    def follow(self, loop: asyncio.AbstractEventLoop, deliver: Callable[[int], None]) -> None:
        """Hand each signal to `deliver` on the loop, also those that came before."""
        self._loop, self._deliver = loop, deliver
        loop.add_reader(self._woken.fileno(), self._take)
        self._take()

    def ignore_all(self) -> None:
        """Ignore all signals that have a handler: the process is ending."""
        for number, decision in DECISIONS.items():
            if decision in _HANDLED:
                signal.signal(number, signal.SIG_IGN)
        signal.set_wakeup_fd(-1)
        if self._loop is not None:
            self._loop.remove_reader(self._woken.fileno())
        self._waking.close()
        self._woken.close()

    def _keep(self, number: int, _frame: object) -> None:
        # Keep a pending signal once: a flood needs no memory.
        if number not in self._pending:
            self._pending.append(number)

    def _take(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while self._woken.recv(4096):
                pass
        assert self._deliver is not None
        while self._pending:
            self._deliver(self._pending.pop(0))


def name_of(number: int) -> str:
    """Return the signal's usual name: `SIGHUP`, `SIGRTMIN+3`."""
    if signal.SIGRTMIN < number <= signal.SIGRTMAX:
        return f"SIGRTMIN+{number - signal.SIGRTMIN}"
    return signal.Signals(number).name


def names_of(decision: Decision) -> Iterable[str]:
    """Return the names of all signals with that decision."""
    return [name_of(number) for number, one in DECISIONS.items() if one is decision]
