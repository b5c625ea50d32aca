"""`cachesvc serve`: run the daemon in the foreground until a signal ends it."""

from __future__ import annotations

import gc
import os
import ssl
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TextIO, cast

from cachesvc.cli.conventions.exits import ExitCode, fail
from cachesvc.cli.serve import allocator
from cachesvc.edge.signals import Signals

_STDERR = 2

if TYPE_CHECKING:
    from cachesvc.cli.serve.log_writer import LogWriter
    from cachesvc.cli.serve.raw_stderr import RawStderr
    from cachesvc.config import Settings


def run(config: Path | None) -> None:
    """Run the daemon with the settings of `config`, if given, and of the environment."""
    signals = Signals.install()
    # Imports make 100,000 objects that stay. The collector would scan them repeatedly until
    # `process.serve` freezes them.
    gc.disable()
    allocator.limit_kept_memory()
    import asyncio

    import_libraries()

    from cachesvc import config as configuration
    from cachesvc.core import pools
    from cachesvc.core.errors import ConfigError

    try:
        settings = configuration.load(config)
        with _logging(settings) as output:
            from cachesvc import process
            from cachesvc.cli.serve import logs

            _warn_of_strangers(settings)

            # uvloop was tried and makes no difference: inline persons of 10.2 MB, median p50 of
            # 11 interleaved rounds 8.1 ms on asyncio's loop, 7.9 ms on uvloop's; a round is 5 to
            # 21.
            asyncio.run(
                process.serve(
                    settings,
                    signals,
                    output,
                    lambda: configuration.load(config),
                    logs.set_level,
                )
            )
    except ConfigError as exc:
        fail(str(exc), ExitCode.USAGE)
    except RuntimeError as exc:
        if not pools.is_refused_thread(exc):
            raise
        fail(pools.NO_THREAD, ExitCode.USAGE)


def _warn_of_strangers(settings: Settings) -> None:
    """Log the variables that look like settings and are none, each with the nearest one."""
    import structlog

    from cachesvc.config.sources import strangers

    if found := strangers(type(settings), os.environ):
        structlog.get_logger().warning(
            "unknown_variables",
            problem="these variables are no settings and are ignored",
            nearest={stranger.name: stranger.nearest for stranger in found},
            do="correct their names or remove them; docs/configuration.md has all settings",
        )


def import_libraries() -> None:
    """Import two libraries without the parts that the daemon does not use."""
    # structlog loads rich if it is installed, for tracebacks that are not used here: a tenth of the
    # start's processor time.
    with _hidden("rich"):
        import structlog  # noqa: F401

    # aiohttp's client reads the CA bundle on import, into contexts that nothing here uses:
    # botocore's client has its own.
    with _no_default_roots():
        import aiohttp  # noqa: F401


@dataclass(frozen=True, slots=True)
class _Output:
    """See `cachesvc.app.daemon.Output`."""

    raw: RawStderr
    writer: LogWriter

    def dropped_lines(self) -> int:
        return self.writer.dropped

    def on_handshake_failure(self, count: Callable[[], None]) -> None:
        self.raw.on_handshake_failure = count


@contextmanager
def _logging(settings: Settings) -> Iterator[_Output]:
    """Log in a thread for the length of a `with`; write the queued lines at its end."""
    from cachesvc.cli.serve import logs
    from cachesvc.cli.serve.log_writer import LogWriter
    from cachesvc.cli.serve.raw_stderr import RawStderr

    log_format, earlier = settings.log_format, sys.stderr
    with ExitStack() as stack:
        fd = os.dup(_STDERR)
        writer = LogWriter(fd, lambda count: logs.dropped_line(log_format, stream, count))
        stream = cast(TextIO, writer)
        stack.callback(setattr, sys, "stderr", earlier)
        stack.callback(writer.end)
        raw = RawStderr(fd)
        stack.callback(raw.give_back)
        # The interpreter's tracebacks and warnings also go through the writer.
        sys.stderr = stream
        logs.configure(log_format, settings.log_level, stream)
        raw.start()
        yield _Output(raw, writer)


@contextmanager
def _no_default_roots() -> Iterator[None]:
    """Let TLS contexts made in the `with` trust no CA and read no file."""
    with ExitStack() as stack:
        for name in ("load_default_certs", "set_default_verify_paths"):
            stack.callback(setattr, ssl.SSLContext, name, getattr(ssl.SSLContext, name))
            setattr(ssl.SSLContext, name, _load_none)
        yield


def _load_none(*_: object) -> None:
    pass


@contextmanager
def _hidden(package: str) -> Iterator[None]:
    """Hide `package` from imports for the length of a `with`, unless it is loaded already."""
    if package in sys.modules:
        yield
        return
    sys.modules[package] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[package]
