"""One log, to standard error."""

from __future__ import annotations

import atexit
import functools
import io
import logging
import os
import re
import select
import sys
import threading
import time
from collections.abc import Hashable, Iterable, MutableMapping, Sequence
from typing import Any

import structlog

from secure_base.batching import BatchingWriter
from secure_base.terminal import escape
from secure_server.throttle import Throttle

_STANDARD_ERROR = 2
_FLUSH = 1.0  # seconds, at the end of the process

_DIGITS = re.compile(r"[0-9]+")
_KIND_LENGTH = 100
_MOST_OF_A_LINE = 2000

_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}


def set_up_logging(form: str, level: str) -> None:
    """Log to standard error, as ``json`` or ``text``; ``auto`` is text on a terminal only.

    In both forms control characters in values are escaped, so that no value can forge a line. As
    text, the lines of a traceback or a stack are indented; no other line is. Logging never blocks:
    where nothing reads standard error, lines that do not fit the buffer are dropped and counted.
    """
    # structlog only calls ``write`` and ``flush``.
    stream: Any = _unblocked() if _is_standard_error(sys.stderr) else sys.stderr
    as_text = form == "text" or (form == "auto" and sys.stderr.isatty())
    renderers = _TEXT if as_text else [structlog.processors.JSONRenderer()]
    structlog.configure(
        processors=[*_SHARED, *renderers],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        logger_factory=structlog.WriteLoggerFactory(stream),
        cache_logger_on_first_use=False,
    )
    # Libraries use ``logging``: the same form, and a throttle, so that callers cannot flood it.
    handler = logging.StreamHandler(stream)
    handler.addFilter(_BoundedRate())
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=_SHARED,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderers],
        )
    )
    logging.basicConfig(handlers=[handler], level=max(_LEVELS[level], logging.WARNING), force=True)


def write_to(descriptor: int) -> None:
    """Write the log to this descriptor instead of standard error."""
    _unblocked().descriptor = descriptor


def library_line(
    library: str, text: str, level: int = logging.WARNING, *, kind: Hashable = None, **values: Any
) -> None:
    """Log a library's message, unless its ``kind`` is throttled.

    ``level`` is one of ``logging``'s. Without a ``kind``, lines that differ only in their numbers
    are of one kind.
    """
    alike = _DIGITS.sub("0", text[:_KIND_LENGTH]) if kind is None else kind
    log = logger(library)

    def more(count: int) -> None:
        log.log(level, _more(count), like=str(alike))

    if _libraries.admit((library, alike), more):
        log.log(level, text[:_MOST_OF_A_LINE], **values)


def count_library_lines() -> None:
    """Log how many lines of libraries were throttled: the process is ending."""
    _libraries.tell(at_once=True)


def lost_lines() -> int:
    """Return how many lines were dropped because standard error was not read."""
    return _unblocked().lost if _unblocked.cache_info().currsize else 0


def flush() -> None:
    """Write buffered lines, for a second at most: the process is about to end without Python's
    normal exit.
    """
    if _unblocked.cache_info().currsize:
        _unblocked().finish()


def write_lines(descriptor: int, lines: Iterable[bytes]) -> None:
    """Write lines, and block until they are written."""
    chunk = b""
    for line in lines:
        # A pipe writes this much atomically: no other writer gets into the middle of a line.
        if chunk and len(chunk) + len(line) > select.PIPE_BUF:
            _write_all(descriptor, chunk)
            chunk = b""
        chunk += line
    _write_all(descriptor, chunk)


def _write_all(descriptor: int, data: bytes) -> None:
    while data:
        try:
            data = data[os.write(descriptor, data) :]
        except BlockingIOError:  # another process that shares it has set O_NONBLOCK
            poll = select.poll()  # select() refuses descriptors above 1023
            poll.register(descriptor, select.POLLOUT)
            poll.poll()


def _is_standard_error(stream: Any) -> bool:
    try:
        return bool(stream.fileno() == _STANDARD_ERROR)
    except (AttributeError, OSError, ValueError):
        return False


class _Unblocked(io.TextIOBase):
    """Standard error, written by a thread of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.lost = 0
        self.descriptor = _STANDARD_ERROR
        self._lock = threading.Lock()
        self._queue: BatchingWriter[str] = BatchingWriter(
            "log", self._write, most=10_000, at_once=256, linger=0, dropped=self._lose
        )
        atexit.register(self.finish)

    def write(self, text: str) -> int:
        self._queue.put(text)
        return len(text)

    def finish(self) -> None:
        self._queue.close(time.monotonic() + _FLUSH)

    def _write(self, lines: Sequence[str]) -> None:
        # To the descriptor: a thread that holds the lock of Python's own stream at exit is a fatal
        # error.
        encoded = (line.encode("utf-8", "backslashreplace") for line in lines)
        write_lines(self.descriptor, encoded)

    def _lose(self, count: int, _reason: str) -> None:
        with self._lock:
            self.lost += count


_unblocked = functools.cache(_Unblocked)
_libraries = Throttle()


class _BoundedRate(logging.Filter):
    """Throttles lines per place in a library's code, and counts the others."""

    def filter(self, record: logging.LogRecord) -> bool:
        def more(count: int) -> None:
            like = str(record.msg)[:_KIND_LENGTH]
            logger(record.name).log(record.levelno, _more(count), like=like)

        return _libraries.admit((record.pathname, record.lineno), more)


def _more(count: int) -> str:
    return f"and {count:,} more like it"


def _escape(_logger: Any, _name: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Escape what the text form writes verbatim: all values but these two are ``repr`` already."""
    event["event"] = escape(str(event["event"]))
    for key in ("exception", "stack"):
        if key in event:
            lines = str(event[key]).split("\n")
            event[key] = "\n".join("    " + escape(line) for line in lines)
    return event


_SHARED: list[Any] = [
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    structlog.processors.format_exc_info,
]
_TEXT: list[Any] = [
    _escape,
    structlog.dev.ConsoleRenderer(
        colors=sys.stderr is not None and sys.stderr.isatty(),
        repr_native_str=True,
        # No other formatter: they print the values of variables, tokens among them.
        exception_formatter=structlog.dev.plain_traceback,
    ),
]


def logger(name: str) -> Any:
    """Return a logger whose lines carry a name.

    It writes where structlog was configured to, by ``set_up_logging`` or by the host application;
    without configuration to standard error, since standard output belongs to the application.
    """
    if structlog.is_configured():
        return structlog.get_logger().bind(logger=name)
    # None in a process without standard error, where PrintLogger would use standard output.
    stream: Any = sys.stderr or io.StringIO()
    own = structlog.wrap_logger(structlog.PrintLogger(stream), [*_SHARED, *_TEXT])
    return own.bind(logger=name)


def log_reload(level: str, event: str, **values: object) -> None:
    """Log the outcome of a reload: a ``secure_base.reloading.Log``."""
    getattr(logger("secure_server.reloading"), level)(event, **values)
