"""What do log lines look like, and what must never be in one?

Lines go to stderr; the daemon's by a thread of its own (`log_writer.py`). No line holds the
value of a variable: structlog's default tracebacks show locals, and ours would be user ids and
object keys.
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

from cachesvc.cli import journal
from cachesvc.cli.log_limits import LimitLibraries, LimitWarnings

LogFormat = Literal["auto", "json", "console"]
LineFormat = Literal["json", "console"]


class LevelledLogger(structlog.BoundLoggerBase):
    """What every module logs with. Loggers are cached, so a new level changes their class."""


def set_level(level: str) -> None:
    """Write lines of `level` and above from now on. Costs nothing at a line that is not."""
    LevelledLogger.__bases__ = (structlog.make_filtering_bound_logger(level),)


def format_for(log_format: LogFormat, stream: TextIO) -> LineFormat:
    """Return what `auto` means: for people where `stream` is a terminal, JSON otherwise."""
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
    # Warnings only, whatever our own level: botocore's finer ones name every object.
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)


def dropped_line(log_format: LogFormat, stream: TextIO, count: int) -> str:
    """Return the line that says how many others were dropped."""
    line: Any = {"event": "log_lines_dropped", "count": count, "level": "warning"}
    line["timestamp"] = datetime.now(UTC).isoformat().replace("+00:00", "Z")
    for processor in _rendering(format_for(log_format, stream), stream):
        line = processor(None, "warning", line)
    return f"{line}\n"


class _LossyLines(io.TextIOBase):
    """A stream for lines: one that cannot be written is lost, and nothing else is.

    Its disk may be full and its reader gone, and neither an answer nor the retries of a
    removal may end by that.
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
