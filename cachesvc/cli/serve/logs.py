"""Configures the format and the level of log lines.

Lines go to stderr; the daemon has a thread for them (`log_writer.py`). No line holds the value of a
variable: structlog's default tracebacks show local variables, which here may be user ids and object
keys.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import sys
from datetime import UTC, datetime
from typing import Any, Literal, TextIO, cast

import structlog
from structlog.tracebacks import ExceptionDictTransformer

from cachesvc.cli.serve import journal
from cachesvc.cli.serve.log_limits import LimitLibraries, LimitWarnings

LogFormat = Literal["auto", "json", "console"]
LineFormat = Literal["json", "console"]


class LevelledLogger(structlog.BoundLoggerBase):
    """The class of every module's logger. Loggers are cached, so a new level changes the class."""


def set_level(level: str) -> None:
    """Write lines of `level` and above from now on. A line below it costs nothing."""
    LevelledLogger.__bases__ = (structlog.make_filtering_bound_logger(level),)


def format_for(log_format: LogFormat, stream: TextIO) -> LineFormat:
    """Return the format; `auto` = for people if `stream` is a terminal, otherwise JSON."""
    if log_format == "auto":
        return "console" if stream.isatty() else "json"
    return log_format


def configure(log_format: LogFormat, level: str, stream: TextIO | None = None) -> None:
    """Send structlog's lines, and the libraries' warnings, to `stream`, by default stderr."""
    stream = stream or cast(TextIO, _LossyLines(sys.stderr))
    shared: list[Any] = [
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    rendering = _rendering(format_for(log_format, stream), stream)
    set_level(level)
    structlog.configure(
        processors=[LimitWarnings(), *shared, *rendering],
        wrapper_class=LevelledLogger,
        logger_factory=structlog.WriteLoggerFactory(stream),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(stream)
    handler.addFilter(LimitLibraries())
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *shared],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *rendering],
        )
    )
    # Only warnings, at any level of ours: botocore's lower levels name every object.
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)


def dropped_line(log_format: LogFormat, stream: TextIO, count: int) -> str:
    """Return the line that says how many lines were dropped."""
    line: Any = {"event": "log_lines_dropped", "count": count, "level": "warning"}
    line["timestamp"] = datetime.now(UTC).isoformat().replace("+00:00", "Z")
    for processor in _rendering(format_for(log_format, stream), stream):
        line = processor(None, "warning", line)
    return f"{line}\n"


class _LossyLines(io.TextIOBase):
    """A stream that loses a line that cannot be written, and raises nothing.

    The disk may be full or the reader gone; neither may end an answer or the retries of an
    invalidation.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError):
            self._stream.write(text)
        return len(text)

    def fileno(self) -> int:
        return self._stream.fileno()

    def isatty(self) -> bool:
        return self._stream.isatty()

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            self._stream.flush()


def _rendering(log_format: LineFormat, stream: TextIO) -> list[Any]:
    rendering: list[Any]
    if log_format == "console":
        formatter = structlog.dev.plain_traceback
        colors = stream.isatty()
        rendering = [structlog.dev.ConsoleRenderer(colors=colors, exception_formatter=formatter)]
    else:
        transformer = ExceptionDictTransformer(show_locals=False)
        rendering = [
            structlog.processors.ExceptionRenderer(transformer),
            structlog.processors.JSONRenderer(),
        ]
    is_journal = journal.reads(stream.fileno(), os.environ)
    return [journal.prefixed(rendering)] if is_journal else rendering
