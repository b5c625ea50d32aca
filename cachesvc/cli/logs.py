"""What do log lines look like, and what must never be in one?

Lines go to stderr. No line holds the value of a variable: structlog's default
tracebacks show locals, and ours would be user ids and object keys.
"""

from __future__ import annotations

import contextlib
import io
import logging
import sys
from typing import Any, Literal, TextIO, cast

import structlog
from structlog.tracebacks import ExceptionDictTransformer

from cachesvc.cli.log_limits import LimitLibraries, LimitWarnings


def configure(log_format: Literal["auto", "json", "console"], level: str) -> None:
    """Send structlog's lines, and the libraries' warnings, to stderr.

    `auto` is for people where stderr is a terminal, JSON otherwise.
    """
    if log_format == "auto":
        log_format = "console" if sys.stderr.isatty() else "json"
    shared: list[Any] = [
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    rendering = _rendering(log_format)
    structlog.configure(
        processors=[LimitWarnings(), *shared, *rendering],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(cast(TextIO, _LossyLines(sys.stderr))),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(LimitLibraries())
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *shared],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *rendering],
        )
    )
    # Warnings only, whatever our own level: botocore's finer ones name every object.
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)


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

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            self._stream.flush()


def _rendering(log_format: Literal["json", "console"]) -> list[Any]:
    if log_format == "console":
        formatter = structlog.dev.plain_traceback
        return [
            structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=formatter)
        ]
    transformer = ExceptionDictTransformer(show_locals=False)
    return [
        structlog.processors.ExceptionRenderer(transformer),
        structlog.processors.JSONRenderer(),
    ]
