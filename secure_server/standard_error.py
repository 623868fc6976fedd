"""Redirects standard error into the log: what libraries write there becomes log lines.

gRPC's core writes to descriptor 2 itself, as often as callers cause it; Python writes tracebacks
there. Here descriptor 2 becomes a pipe that a thread reads; the log and ``faulthandler`` get a
duplicate of the original. For our own process only, never where the guard is used as a library.
"""

from __future__ import annotations

import contextlib
import faulthandler
import fcntl
import io
import logging
import os
import re
import stat
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any

from secure_server import logs

_DESCRIPTOR = 2
_CHUNK = 65536  # bytes
_ROOM = 1 << 20  # bytes in the pipe: the most that an unprivileged user may set
_WAIT = 1.0  # seconds for the last lines, at the end
_ASKED_FOR = ("GRPC_TRACE", "GRPC_VERBOSITY")

# absl/log: E1128 04:28:46.613680   25326 posix_engine_listener.cc:164] text
_ABSL = re.compile(r"([IWEF])[0-9]{4} [0-9:.]+ +[0-9]+ ([\w./-]+:[0-9]+)\] ?(.*)", re.DOTALL)
_LEVELS = {
    "I": logging.INFO,
    "W": logging.WARNING,
    "E": logging.ERROR,
    "F": logging.CRITICAL,
}


@contextmanager
def captured() -> Iterator[None]:
    """Redirect standard error into the log while the block runs.

    Writers never block: what does not fit into the pipe is lost; lines of one kind that come too
    often are dropped and counted. When a signal kills the process, ``faulthandler`` writes the
    stacks of all threads to the original standard error. A library's very last lines may be lost:
    set GRPC_VERBOSITY or GRPC_TRACE, and descriptor 2 is not redirected.
    """
    with _hooks():
        if any(os.environ.get(name) for name in _ASKED_FOR):
            yield
            return
        real = os.dup(_DESCRIPTOR)
        logs.write_to(real)
        faulthandler.enable(_for_last_words(real))
        reader = _redirect(real)
        before, sys.stderr = sys.stderr, _Text()
        try:
            yield
        finally:
            sys.stderr = before
            # The last writing end but those of children: the reader sees the end of the pipe.
            os.dup2(real, _DESCRIPTOR)
            logs.write_to(_DESCRIPTOR)
            faulthandler.enable(_for_last_words(_DESCRIPTOR))
            reader.join(_WAIT)
            logs.count_library_lines()


def _redirect(real: int) -> threading.Thread:
    reading, writing = os.pipe()
    with contextlib.suppress(OSError):
        fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, _ROOM)
    # A thread that holds the GIL may write there, and then the reader cannot read.
    os.set_blocking(writing, False)
    os.dup2(writing, _DESCRIPTOR)
    os.close(writing)
    reader = threading.Thread(target=_read, args=(reading, real), name="stderr", daemon=True)
    reader.start()
    return reader


def _read(reading: int, real: int) -> None:
    rest = b""
    with open(reading, "rb", buffering=0) as pipe:
        while chunk := pipe.read(_CHUNK):
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                _log(line, real)
            if len(rest) > _CHUNK:
                rest = b""
    _log(rest, real)


def _log(line: bytes, real: int) -> None:
    text = line.decode("utf-8", "replace").strip()
    if not text:
        return
    match = _ABSL.fullmatch(text)
    if match is None:
        logs.library_line("stderr", text)
        return
    severity, place, said = match.groups()
    if severity == "F":  # the process ends: the log's own thread would be too late
        with contextlib.suppress(OSError):
            os.write(real, line + b"\n")
    logs.library_line("grpc", said, _LEVELS[severity], kind=place, place=place)


def _for_last_words(descriptor: int) -> int:
    """Return a descriptor that never blocks a dying process, even if it is an unread pipe."""
    if stat.S_ISFIFO(os.fstat(descriptor).st_mode):
        with contextlib.suppress(OSError):
            # Reopened: other processes that share the pipe do not expect O_NONBLOCK.
            return os.open(f"/proc/self/fd/{descriptor}", os.O_WRONLY | os.O_NONBLOCK)
    return descriptor


class _Text(io.TextIOBase):
    """``sys.stderr`` without the pipe: writing never fails, and lines are never split."""

    encoding = "utf-8"

    def __init__(self) -> None:
        super().__init__()
        self._begun = threading.local()

    def fileno(self) -> int:
        return _DESCRIPTOR

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        *lines, rest = (getattr(self._begun, "text", "") + text).split("\n")
        self._begun.text = rest[-_CHUNK:]
        for line in lines:
            if line.strip():
                logs.library_line("stderr", line.rstrip())
        return len(text)


@contextmanager
def _hooks() -> Iterator[None]:
    """Log the exceptions and warnings that Python would print."""
    hooks = threading.excepthook, sys.unraisablehook
    threading.excepthook = _thread_ended
    sys.unraisablehook = _unraisable
    logging.captureWarnings(True)  # noqa: FBT003
    try:
        yield
    finally:
        threading.excepthook, sys.unraisablehook = hooks
        logging.captureWarnings(False)  # noqa: FBT003


def _thread_ended(args: threading.ExceptHookArgs) -> None:
    if args.exc_type is not SystemExit:
        name = args.thread.name if args.thread else "?"
        _log_exception(f"a thread has ended by an exception: {name}", args.exc_value)


def _unraisable(args: Any) -> None:
    # Not the object itself: its repr may hold secrets.
    what = getattr(args.object, "__qualname__", type(args.object).__qualname__)
    _log_exception(f"{args.err_msg or 'an exception was ignored'}: {what}", args.exc_value)


def _log_exception(text: str, error: BaseException | None) -> None:
    trace: TracebackType | None = error.__traceback__ if error else None
    place = (trace.tb_frame.f_code.co_filename, trace.tb_lineno) if trace else None
    logs.library_line(
        "python", text, logging.ERROR, kind=(type(error).__name__, place), exc_info=error
    )
